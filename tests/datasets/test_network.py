from __future__ import annotations

import json

import pytest
import torch
from fsspec.implementations.local import LocalFileSystem
from kedro.io import DatasetError

from adv_detect.datasets.network import NetworkDataset
from adv_detect.deferred import Deferred
from adv_detect.sharding import files


@pytest.fixture
def dataset(tmp_path):
    return NetworkDataset(filepath=tmp_path / "network.safetensors")


def test_loaded_network_computes_the_same_and_is_frozen(dataset, target):
    dataset.save(target)
    loaded = dataset.load()
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded(images), target(images))
    assert loaded(images).abs().max() > 0
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_deferred_network_is_made_only_when_its_fingerprint_changed(dataset, target):
    made = []

    def make():
        made.append(1)
        return target

    dataset.save(Deferred("one", make))
    dataset.save(Deferred("one", make))
    assert len(made) == 1
    dataset.save(Deferred("two", make))
    assert len(made) == 2
    assert dataset.load().spec == target.spec


@pytest.mark.parametrize("lost", ["network.safetensors", "network.json"])
def test_deferred_network_is_made_again_when_a_file_is_gone(dataset, target, tmp_path, lost):
    made = []
    deferred = Deferred("one", lambda: made.append(1) or target)
    dataset.save(deferred)
    (tmp_path / lost).unlink()
    assert not dataset.exists()
    dataset.save(deferred)
    assert made == [1, 1]


def test_failed_training_keeps_the_old_network(dataset, target):
    dataset.save(target)

    def fail():
        raise ValueError("did not converge")

    with pytest.raises(DatasetError, match="did not converge"):
        dataset.save(Deferred("other", fail))
    assert dataset.load().spec == target.spec


def test_files_of_different_networks_are_an_error(dataset, target, tmp_path):
    dataset.save(target)
    path = tmp_path / "network.json"
    content = files.read_json(LocalFileSystem(), str(path))
    files.write_json(LocalFileSystem(), str(path), content | {"fingerprint": "other"})
    with pytest.raises(DatasetError, match="are of different networks; delete both"):
        dataset.load()
    made = []
    dataset.save(Deferred("other", lambda: made.append(1) or target))
    assert made == [1]
    dataset.load()


def test_description_of_something_else_is_an_error(dataset, target, tmp_path):
    dataset.save(target)
    path = tmp_path / "network.json"
    content = files.read_json(LocalFileSystem(), str(path))
    files.write_json(LocalFileSystem(), str(path), content | {"spec": {"name": "small"}})
    with pytest.raises(DatasetError, match=r"(?s)does not describe a network: .*num_classes"):
        dataset.load()


def test_description_is_readable_json(dataset, target, tmp_path):
    dataset.save(target)
    spec = json.loads((tmp_path / "network.json").read_text())["spec"]
    assert spec["name"] == "small"
    assert spec["image_shape"] == [1, 28, 28]
    assert spec["accuracy"] == 0.5


def test_other_file_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected a name that ends in \.safetensors"):
        NetworkDataset(filepath=tmp_path / "network.pt")
