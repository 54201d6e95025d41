from __future__ import annotations

import pandas as pd

from adv_detect.reporting.blocks import Fold, Note, Table
from adv_detect.reporting.by_class import class_section
from adv_detect.reporting.results import EvaluationResults


def results(rows: pd.DataFrame) -> EvaluationResults:
    return EvaluationResults(
        metrics=pd.DataFrame({"criterion": ["targeted"]}),
        detectors=pd.DataFrame(),
        attack_records=pd.DataFrame(),
        network={},
        images={},
        registered="ours/both/all/0",
        by_class=rows,
        class_names=("cat", "dog"),
    )


def measured() -> pd.DataFrame:
    own = {"detector": "ours/both/all/0", "n": [30, 10], "fpr_05": [0.0, 0.4], "p_05": 0.004}
    margin = {"detector": "margin", "n": [30, 10], "fpr_05": [0.1, 0.1], "p_05": float("nan")}
    parts = [pd.DataFrame({"class": [0, 1], "fpr_05_low": 0.01, "fpr_05_high": 0.5} | one) for one in (own, margin)]
    return pd.concat(parts, ignore_index=True)


def test_the_worst_class_is_named_with_its_interval():
    *_, table, fold = class_section(results(measured())).blocks

    assert isinstance(table, Table)
    first, second = table.frame.to_dict("records")
    assert (first["n"], first["all classes"], first["worst class"]) == (40, 0.1, "dog")  # 4 of 40
    assert first["its false alarms"] == "40.0% (1.0 to 50.0)"
    assert first["differ by chance"] == 0.004
    assert (second["detector"], second["worst class"]) == ("control: margin only", "cat")
    assert isinstance(fold, Fold)
    assert fold.blocks[0].frame["class"].tolist() == ["dog", "cat"]  # worst first


def test_nothing_is_said_of_what_was_not_measured():
    assert isinstance(class_section(results(pd.DataFrame())).blocks[-1], Note)
