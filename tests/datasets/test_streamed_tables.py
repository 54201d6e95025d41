"""Tables that are written part by part."""

from __future__ import annotations

import pandas as pd
import pyarrow.parquet as pq
import pytest
from kedro.io import DatasetError

from adv_detect.datasets.streamed_tables import StreamedCSVDataset, StreamedParquetDataset

PARTS = [
    pd.DataFrame({"name": ["a", "b"], "n": [1, None]}).astype({"name": "str", "n": "Int64"}),
    pd.DataFrame({"name": [None], "n": [3]}).astype({"name": "str", "n": "Int64"}),
]
WHOLE = pd.concat(PARTS, ignore_index=True)


class Parts:
    """Parts that are made anew each time they are asked for."""

    def __iter__(self):
        return iter(PARTS)


@pytest.mark.parametrize("data", [Parts(), WHOLE], ids=["parts", "whole"])
def test_parquet_holds_all_parts_in_order(tmp_path, data):
    dataset = StreamedParquetDataset(filepath=str(tmp_path / "t.parquet"), made_by="scoring")
    dataset.save(data)
    pd.testing.assert_frame_equal(dataset.load(), WHOLE)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".t.parquet.sha256", "t.parquet"]


def test_a_part_is_a_row_group(tmp_path):
    StreamedParquetDataset(filepath=str(tmp_path / "t.parquet")).save(Parts())
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups == 2


@pytest.mark.parametrize("data", [Parts(), WHOLE], ids=["parts", "whole"])
def test_csv_has_one_header(tmp_path, data):
    dataset = StreamedCSVDataset(filepath=str(tmp_path / "t.csv"), save_args={"index": False})
    dataset.save(data)
    assert (tmp_path / "t.csv").read_text().splitlines() == ["name,n", "a,1", "b,", ",3"]


def test_what_fails_midway_leaves_the_table_of_before(tmp_path):
    def failing():
        yield PARTS[0]
        raise RuntimeError("the second part")

    dataset = StreamedParquetDataset(filepath=str(tmp_path / "t.parquet"))
    dataset.save(WHOLE)
    with pytest.raises((RuntimeError, DatasetError), match="the second part"):
        dataset.save(failing())
    pd.testing.assert_frame_equal(dataset.load(), WHOLE)
    assert not [path for path in tmp_path.iterdir() if "tmp" in path.name]
