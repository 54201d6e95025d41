"""Small files of a run for the documentation."""

from __future__ import annotations

import pandas as pd
import pytest
from benchmarks.kept_results import KEEP, keep


def test_rows_and_columns_are_kept(tmp_path):
    columns = {name: 1 for name in (*KEEP["detection_metrics.csv"][1], *KEEP["detection_metrics.csv"][2], "eer")}
    rows = [
        columns | {"attack": "macro", "variant": "float", "auc": 0.123456789},
        columns | {"attack": "bim", "variant": "float"},
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "detection_metrics.csv")
    pd.DataFrame([{"detector": "a", "auc": 1 / 3}]).to_csv(tmp_path / "leaderboard.csv", index=False)

    written = keep(tmp_path, tmp_path / "kept")

    assert [path.name for path in written] == ["detection_metrics.csv", "leaderboard.csv"]
    [row] = pd.read_csv(written[0]).to_dict("records")
    assert row["auc"] == 0.123457
    assert "eer" not in row
    assert written[1].read_text() == "detector,auc\na,0.333333\n"


def test_a_folder_of_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected one of adaptive_summary\.csv.*got none"):
        keep(tmp_path, tmp_path / "kept")

    assert not (tmp_path / "kept").exists()
