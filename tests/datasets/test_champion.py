from __future__ import annotations

import json

import numpy as np
import pytest
from kedro.io import DatasetError

from adv_detect.datasets.champion import ChampionModelDataset
from adv_detect.serving.bundle import score_images


@pytest.fixture
def dataset(tmp_path):
    return ChampionModelDataset(filepath=str(tmp_path / "models" / "champion"), metadata={"a": 1})


def test_round_trip(dataset, bundle, tmp_path):
    assert not dataset.exists()
    dataset.save(bundle)
    assert dataset.exists()
    images = np.full((1, 1, 28, 28), 0.5, dtype=np.float32)
    assert score_images(dataset.load(), images).equals(score_images(bundle, images))
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["champion"]


def test_saving_replaces_the_whole_folder(dataset, bundle, tmp_path):
    dataset.save(bundle)
    (tmp_path / "models" / "champion" / "stale.txt").write_text("from before")
    dataset.save(bundle)
    assert not (tmp_path / "models" / "champion" / "stale.txt").exists()


def test_nothing_there(dataset):
    with pytest.raises(DatasetError, match="run `kedro run --pipeline=detector_training` first"):
        dataset.load()


def test_preview_and_description(dataset, bundle):
    dataset.save(bundle)
    shown = json.loads(dataset.preview())
    assert shown["detector"] == "tiny/both/all/0"
    assert shown["input_shape"] == "(N, 1, 28, 28) float32"
    assert dataset.metadata == {"a": 1}
    assert "champion" in str(dataset)
