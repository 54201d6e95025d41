"""Images that are in two sets, or twice in one."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from adv_detect.datasets.embedded_mnist import EmbeddedMNISTDataset
from adv_detect.datasets.image_folder import ImageFolderDataset
from adv_detect.datasets.overlap import refuse_overlap
from adv_detect.errors import DataError


class Pixels:
    """Images of one pixel."""

    class_names = ("a", "b")

    def __init__(self, values, labels=None, name="n"):
        self._values = values
        self.labels = torch.tensor(labels or [index % 2 for index in range(len(values))])
        self.source_ids = tuple(f"{name}{index}" for index in range(len(values)))

    def __len__(self):
        return len(self._values)

    def __getitem__(self, index):
        return torch.full((1, 1, 1), self._values[index], dtype=torch.uint8), int(self.labels[index])


def test_shared_images_are_counted_and_named():
    with pytest.raises(DataError, match=r"got 2 of 3 test images that .*: t1 = x0, t3 = x2; .*part"):
        refuse_overlap(Pixels([1, 2, 3, 4], name="t"), Pixels([2, 9, 4], name="x"))


def test_many_shared_images_are_not_all_named():
    with pytest.raises(DataError, match=r"got 8 of 8 .* and 3 more"):
        refuse_overlap(Pixels(range(8)), Pixels(range(8)))


def test_the_same_folder_twice(folder):
    images = ImageFolderDataset(filepath=folder).load()
    with pytest.raises(DataError, match=r"got 11 of 11 test images .*: ant/0\.png, ant/1\.png, .* and 6 more"):
        refuse_overlap(images, ImageFolderDataset(filepath=folder).load())


def test_a_copy_under_another_name_in_another_folder(folder, tmp_path):
    other = tmp_path / "other"
    for index, name in enumerate(("ant", "bee", "cat")):
        (other / name).mkdir(parents=True)
        Image.new("RGB", (6, 8), (200, index, 1)).save(other / name / "new.png")
    train, test = ImageFolderDataset(filepath=folder), ImageFolderDataset(filepath=other)
    refuse_overlap(train.load(), test.load())
    shutil.copy(folder / "bee" / "3.png", other / "cat" / "old.png")
    with pytest.raises(DataError, match=r"got 1 of 4 .*: bee/3\.png = cat/old\.png;"):
        refuse_overlap(train.load(), test.load())


def test_files_are_compared_with_images_in_memory_by_pixels(folder):
    files = ImageFolderDataset(filepath=folder).load()

    class InMemory(Pixels):
        def __getitem__(self, index):
            return torch.full((3, 8, 6), 1, dtype=torch.uint8) if index else files[5][0], 0

    with pytest.raises(DataError, match=r"got 1 of 2 .*: bee/1\.png = n0;"):
        refuse_overlap(files, InMemory([0, 0]))


def test_the_parts_of_the_embedded_images_are_apart():
    train, test = (EmbeddedMNISTDataset(part=part).load() for part in ("train", "test"))
    refuse_overlap(train, test)
    with pytest.raises(DataError, match="got 2000 of 2000 test images"):
        refuse_overlap(test, test)


def test_copies_within_a_set_are_said(caplog):
    with caplog.at_level(logging.WARNING):
        refuse_overlap(Pixels([1, 2, 1, 1], [0, 0, 0, 1], name="t"), Pixels([5, 6]))
    assert "train_images: 1 images occur once more in the same class: t0 = t2" in caplog.text
    assert "train_images: 1 images occur once more under another class label: t0 = t3" in caplog.text
    assert "test_images" not in caplog.text


def test_parts_of_a_folder_with_copies_are_apart(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        for index in range(12):  # each picture twice, and one of class a in class b too
            pixels = np.random.default_rng([seed, index // 2]).integers(0, 255, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index:02d}.png")
    shutil.copy(tmp_path / "a" / "00.png", tmp_path / "b" / "99.png")
    for seed in range(5):
        train, test = (
            ImageFolderDataset(filepath=tmp_path, part=part, test_fraction=0.5, seed=seed).load()
            for part in ("train", "test")
        )
        assert len(train) + len(test) == 25
        refuse_overlap(train, test)
