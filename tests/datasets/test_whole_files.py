"""Whole writes and digests of tables, texts and figures, and the report part that is no pickle."""

from __future__ import annotations

import hashlib
import inspect
import json
import pickle
import re
from pathlib import Path

import pandas as pd
import pytest
from kedro.io import DatasetError
from kedro_datasets.partitions import PartitionedDataset

from adv_detect.datasets.report_part import ReportPartDataset
from adv_detect.datasets.whole_files import (
    CheckedJSONDataset,
    CheckedParquetDataset,
    WholeCSVDataset,
    WholePictureDataset,
    WholeTextDataset,
)
from adv_detect.reporting import Report, ReportPart, Section, Text

ROOT = Path(__file__).resolve().parents[2]
TABLE = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
CHECKED = [(CheckedParquetDataset, "t.parquet", TABLE), (CheckedJSONDataset, "t.json", {"a": 0.5})]
WHOLE = [
    (WholeCSVDataset, "t.csv", TABLE),
    (WholeTextDataset, "t.html", "text"),
    (WholePictureDataset, "t.png", b"\x89PNG"),
]
DAMAGES = [
    lambda raw: bytes([raw[0] ^ 1]) + raw[1:],
    lambda raw: raw[:-1] + bytes([raw[-1] ^ 128]),
    lambda raw: raw[:-3],
    lambda raw: b"",
    lambda raw: raw[:4] + bytes(4) + raw[8:],
]  # fmt: skip


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize(("kind", "name", "data"), CHECKED)
def test_a_checked_file_keeps_values_digest_and_preview(tmp_path, kind, name, data):
    dataset = kind(filepath=str(tmp_path / name), made_by="evaluation", metadata={"layer": 1})
    dataset.save(data)
    dataset.save(data)

    again = dataset.load()

    assert again.equals(data) if isinstance(data, pd.DataFrame) else again == data
    digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert (tmp_path / f".{name}.sha256").read_text() == f"{digest}  {name}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{name}.sha256", name]
    assert inspect.signature(dataset.preview).return_annotation
    assert dataset.preview()
    assert dataset.metadata == {"layer": 1}


@pytest.mark.parametrize(("kind", "name", "data"), CHECKED)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_what_makes_it(tmp_path, kind, name, data, damage):
    dataset = kind(filepath=str(tmp_path / name), made_by="evaluation")
    dataset.save(data)
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(damage(raw))

    with pytest.raises(DatasetError, match=rf"{name} is damaged .*make it with: kedro run --pipeline=evaluation"):
        dataset.load()
    dataset.save(data)
    dataset.load()


def test_swapped_files_are_noticed_with_their_digests(tmp_path):
    names = ("one.parquet", "two.parquet")
    for name in names:
        CheckedParquetDataset(filepath=str(tmp_path / name)).save(TABLE.assign(name=name))
    for prefix, suffix in (("", ""), (".", ".sha256")):
        one, two = (tmp_path / f"{prefix}{name}{suffix}" for name in names)
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)
    with pytest.raises(DatasetError, match=r"one\.parquet is damaged"):
        CheckedParquetDataset(filepath=str(tmp_path / "one.parquet")).load()


def test_a_file_of_an_older_version_is_explained(tmp_path):
    TABLE.to_parquet(tmp_path / "old.parquet")
    with pytest.raises(DatasetError, match=r"no digest .* of an older version\); make it with: kedro run --pipeline=x"):
        CheckedParquetDataset(filepath=str(tmp_path / "old.parquet"), made_by="x").load()


def test_a_file_that_is_absent_is_absent(tmp_path):
    assert not CheckedParquetDataset(filepath=str(tmp_path / "none.parquet")).exists()
    with pytest.raises(DatasetError, match=r"none\.parquet"):
        CheckedParquetDataset(filepath=str(tmp_path / "none.parquet")).load()


@pytest.mark.parametrize(("kind", "name", "data"), CHECKED + WHOLE)
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, kind, name, data):
    dataset = kind(filepath=str(tmp_path / name))
    dataset.save(data)
    before = (tmp_path / name).read_bytes()
    (tmp_path / f"{name}.tmp-0123").write_bytes(b"left by a kill")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            dataset.save(data)
    assert (tmp_path / name).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "tmp-" in path.name] == []


def test_a_leftover_pickle_among_the_parts_of_the_report_is_never_read(tmp_path):
    part = ReportPart(Report("t", "s", [Section("one", [Text("a")])]), "detectors")
    ReportPartDataset(filepath=tmp_path / "evaluation.json").save(part)
    for name in ("adaptive.pickle", "faces.pickle", "other.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Malicious(tmp_path / "made")))
    parts = PartitionedDataset(path=str(tmp_path), dataset=ReportPartDataset, filename_suffix=".json").load()

    assert {name: read() for name, read in parts.items()} == {"evaluation": part}
    assert not (tmp_path / "made").exists()


def test_a_pickle_under_the_name_of_a_part_is_refused_and_not_run(tmp_path):
    (tmp_path / "faces.json").write_bytes(pickle.dumps(Malicious(tmp_path / "made")))
    with pytest.raises(DatasetError, match=r"faces\.json is damaged .*kedro run --pipeline=faces"):
        ReportPartDataset(filepath=tmp_path / "faces.json").load()
    assert not (tmp_path / "made").exists()


def test_no_catalog_entry_and_no_module_loads_a_pickle():
    catalogs = [path.read_text() for path in (ROOT / "conf").rglob("*.yml")]
    assert len(catalogs) > 10
    assert not [text for text in catalogs if re.search(r"pickle|joblib|cloudpickle", text, re.IGNORECASE)]
    assert "pickle" not in (ROOT / "pyproject.toml").read_text().replace("cloudpickle", "")
    loads = re.compile(
        r"\b(?:pickle|cloudpickle|joblib|dill)\.loads?\(|read_pickle\("
        r"|\bUnpickler\(|PickleDataset|allow_pickle=True"
    )
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        # One reads arrays only and refuses every other name; the other hands work to processes of its own.
        if path.name not in ("numpy_pickle.py", "workers.py"):
            assert not loads.search(text), path
        for call in re.findall(r"torch\.load\([^\n]*", text):
            assert "weights_only=True" in call, path


def test_the_json_of_a_part_holds_its_digest(tmp_path):
    part = ReportPart(Report("t", "s", [Section("one", [Text("a")])]), "detectors")
    ReportPartDataset(filepath=tmp_path / "evaluation.json").save(part)
    content = json.loads((tmp_path / "evaluation.json").read_text())
    digest = content.pop("sha256")
    assert digest == hashlib.sha256(json.dumps(content, indent=1).encode()).hexdigest()
