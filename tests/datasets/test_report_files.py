"""Parts of the report and pictures on disk."""

from __future__ import annotations

import base64
import inspect
import json

import pytest
from kedro.io import DatasetError

from adv_detect.datasets.report_part import ReportPartDataset
from adv_detect.datasets.whole_files import WholePictureDataset
from adv_detect.reporting import Figure, Report, ReportPart, Section, Text

PICTURE = b"\x89PNG\r\n\x1a\n and more \x00\xff"
PART = ReportPart(Report("Title", "sub", [Section("One", [Text("here"), Figure(PICTURE, "a picture")])]), "detectors")


def test_a_part_comes_back_as_it_was(tmp_path):
    dataset = ReportPartDataset(filepath=tmp_path / "parts/evaluation.json")
    dataset.save(PART)

    assert ReportPartDataset(filepath=tmp_path / "parts/evaluation.json").load() == PART


def test_a_pipeline_that_has_not_run_has_no_part(tmp_path):
    dataset = ReportPartDataset(filepath=tmp_path / "evaluation.json")

    assert not dataset.exists()
    assert dataset.load() is None


@pytest.mark.parametrize("content", ["{", json.dumps({"title": "x"}), json.dumps({"sections": [{"title": "x"}]})])
def test_a_part_that_is_none_is_refused_with_the_command_that_makes_it(tmp_path, content):
    (tmp_path / "face_recognition.json").write_text(content)

    with pytest.raises(DatasetError, match=r"face_recognition\.json.*kedro run --pipeline=face_recognition"):
        ReportPartDataset(filepath=tmp_path / "face_recognition.json").load()


def test_a_picture_is_stored_as_it_is_and_shown_in_kedro_viz(tmp_path):
    dataset = WholePictureDataset(filepath=str(tmp_path / "figures/roc.png"))
    dataset.save(PICTURE)

    assert (tmp_path / "figures/roc.png").read_bytes() == dataset.load() == PICTURE
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["roc.png"]
    assert base64.b64decode(dataset.preview()) == PICTURE
    annotation = inspect.signature(dataset.preview).return_annotation
    assert getattr(annotation, "__name__", str(annotation)) == "ImagePreview"
