from __future__ import annotations

import numpy as np
import pytest
import torch
from kedro.io import DatasetError

from adv_detect.datasets.torchvision_images import TorchvisionImages, TorchvisionImagesDataset, unpack_archives
from adv_detect.errors import ConfigurationError, DataError


def mnist(raw, **arguments):
    return TorchvisionImagesDataset(
        **{"dataset": "MNIST", "filepath": str(raw.parents[1]), "train": False, **arguments}
    )


def test_packed_files_are_unpacked_beside_themselves_and_read(raw):
    dataset = mnist(raw)
    assert dataset.exists()
    images = dataset.load()
    assert (raw / "t10k-images-idx3-ubyte").is_file()
    assert not list(raw.glob("*.tmp-*"))
    assert len(images) == 10
    assert images.class_names == tuple("0123456789")
    assert images.source_ids[3] == "mnist-test-00003"
    assert images.labels.tolist() == list(range(10))
    image, label = images[7]
    assert torch.equal(image, torch.full((1, 28, 28), 7, dtype=torch.uint8))
    assert label == 7


def test_training_part_and_draw(raw):
    images = mnist(raw, train=True, max_images=10).load()
    assert images.labels.bincount().tolist() == [1] * 10
    assert images.source_ids[0].startswith("mnist-train-")


def test_names_can_be_given(raw):
    assert mnist(raw, class_names=list("abcdefghij")).load().class_names[1] == "b"


def test_absent_files_say_what_to_place_where(tmp_path):
    dataset = TorchvisionImagesDataset(dataset="MNIST", filepath=str(tmp_path), train=True)
    assert not dataset.exists()
    with pytest.raises(DatasetError, match=r"set download: true .*place MNIST/raw/ with train-images-idx3-ubyte\.gz"):
        dataset.load()


def test_absent_cifar_names_its_folder(tmp_path):
    dataset = TorchvisionImagesDataset(dataset="torchvision.datasets.CIFAR10", filepath=str(tmp_path), train=True)
    with pytest.raises(DatasetError, match=r"place cifar-10-batches-py/, unpacked from cifar-10-python\.tar\.gz"):
        dataset.load()


def test_failed_download_is_said(tmp_path, monkeypatch):
    def fail(self):
        raise RuntimeError("no route to host")

    monkeypatch.setattr("torchvision.datasets.MNIST.download", fail)
    dataset = TorchvisionImagesDataset(dataset="MNIST", filepath=str(tmp_path), train=True, download=True)
    with pytest.raises(DatasetError, match="download failed; no route to host"):
        dataset.load()


def test_existing_files_need_no_download(raw, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.MNIST.download", lambda self: pytest.fail("downloads"))
    assert len(mnist(raw, download=True).load()) == 10


def test_damaged_archive_is_named(raw):
    path = raw / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz could not be unpacked"):
        unpack_archives(raw)
    assert not (raw / "train-images-idx3-ubyte").exists()
    assert not list(raw.glob("*.tmp-*"))


@pytest.mark.parametrize("name", ["MNISTT", "nowhere.Images"])
def test_unknown_class_is_refused_at_once(name):
    with pytest.raises(ConfigurationError, match=f"^dataset: .*{name}"):
        TorchvisionImagesDataset(dataset=name, filepath="x", train=True)


def test_set_without_labels_is_refused():
    with pytest.raises(DataError, match="expected a classification set"):
        TorchvisionImages([1, 2], name="x")


def test_class_that_speaks_of_splits_gets_one(tmp_path):
    from torchvision.datasets import CIFAR10, SVHN

    from adv_detect.datasets.torchvision_images import _part_arguments

    assert _part_arguments(SVHN, train=False, download=True) == {"split": "test", "download": True}
    assert _part_arguments(CIFAR10, train=True, download=False) == {"train": True, "download": False}


def test_names_default_to_numbers():
    class Plain:
        labels = np.array([0, 2])

    assert TorchvisionImages(Plain(), name="x").class_names == ("0", "1", "2")


def test_full_mnist(shared_data, tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for archive in (shared_data / "MNIST" / "raw").glob("*.gz"):
        (folder / archive.name).symlink_to(archive)
    images = TorchvisionImagesDataset(dataset="MNIST", filepath=str(tmp_path), train=False).load()
    assert len(images) == 10_000
    assert images.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert images[0][0].shape == (1, 28, 28)
