from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedShuffleSplit

from adv_detect.datasets.selection import ImageSubset, check_part, stratified_part, stratified_subset
from adv_detect.errors import ConfigurationError, DataError

NAMES = ("a", "b", "c")


class Numbers:
    class_names = NAMES

    def __init__(self, counts=(60, 30, 10)):
        self.labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
        self.source_ids = tuple(f"n{index}" for index in range(len(self.labels)))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return torch.full((1, 1, 1), index, dtype=torch.uint8), int(self.labels[index])


def test_subset_keeps_shares_as_scikit_learn_does():
    images = Numbers()
    ours = stratified_subset(images, 20, seed=0).labels.bincount()
    _, index = next(StratifiedShuffleSplit(1, test_size=20, random_state=0).split(np.zeros(100), images.labels))
    assert ours.tolist() == images.labels[torch.from_numpy(index)].bincount().tolist() == [12, 6, 2]


def test_subsets_are_nested_ordered_and_depend_on_the_seed():
    images = Numbers()
    small, large = stratified_subset(images, 10, seed=1), stratified_subset(images, 30, seed=1)
    assert set(small.source_ids) < set(large.source_ids)
    numbers = [int(name[1:]) for name in large.source_ids]
    assert numbers == sorted(numbers)
    assert stratified_subset(images, 10, seed=1).source_ids == small.source_ids
    assert stratified_subset(images, 10, seed=2).source_ids != small.source_ids


def test_no_class_is_empty_while_there_is_room():
    assert stratified_subset(Numbers((97, 2, 1)), 3, seed=0).labels.bincount().tolist() == [1, 1, 1]


@pytest.mark.parametrize("count", [None, 100, 1000])
def test_whole_set_passes_through(count):
    images = Numbers()
    assert stratified_subset(images, count, seed=0) is images


def test_subset_of_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="max_images: expected at least 1 or null, got 0"):
        stratified_subset(Numbers(), 0, seed=0)


def test_subset_gives_images_of_the_set():
    subset = ImageSubset(Numbers(), [70, 3])
    assert (len(subset), subset.source_ids, subset.labels.tolist()) == (2, ("n70", "n3"), [1, 0])
    assert subset[0][0].item() == 70
    assert subset[0][1] == 1


def test_subset_identity_tells_choices_apart():
    one, other = ImageSubset(Numbers(), [1, 2]), ImageSubset(Numbers(), [1, 3])
    assert one.identity == ImageSubset(Numbers(), [1, 2]).identity != other.identity


@pytest.mark.parametrize("counts", [(60, 30, 10), (3, 3, 3), (4, 3, 100)])
def test_parts_are_disjoint_whole_and_hold_every_class(counts):
    labels = Numbers(counts).labels
    fractions = {"test": 0.3, "validation": 0.2}
    parts = {
        part: stratified_part(labels, part, fractions, seed=5, class_names=NAMES)
        for part in ("train", "validation", "test")
    }
    assert sorted(index for part in parts.values() for index in part) == list(range(len(labels)))
    for part in parts.values():
        assert labels[part].unique().tolist() == [0, 1, 2]
    assert len(parts["test"]) == sum(max(1, round(0.3 * count)) for count in counts)


def test_other_classes_and_a_validation_part_do_not_move_the_test_part():
    labels = Numbers().labels
    whole = stratified_part(labels, "test", {"test": 0.3}, seed=5, class_names=NAMES)
    fewer = stratified_part(labels[:60], "test", {"test": 0.3, "validation": 0.1}, seed=5, class_names=NAMES)
    assert fewer == [index for index in whole if index < 60]


def test_class_that_cannot_be_in_all_parts_is_named():
    with pytest.raises(DataError, match=r"class 'c' has 1 image, but .*\['train', 'test'\].*min_images_per_class: 2"):
        stratified_part(Numbers((5, 5, 1)).labels, "test", {"test": 0.5}, seed=0, class_names=NAMES)


@pytest.mark.parametrize(
    ("part", "fractions", "message"),
    [
        (
            "validation",
            {"test": 0.3, "validation": 0.0},
            r"part: expected one of \['train', 'test'\], got 'validation'",
        ),
        ("tests", {"test": 0.3}, "got 'tests'"),
        ("test", {"test": 1.0}, "below 1 in all"),
        ("test", {"test": -0.1}, "non-negative"),
    ],
)
def test_impossible_parts_are_refused(part, fractions, message):
    with pytest.raises(ConfigurationError, match=message):
        check_part(part, fractions)


def test_subset_is_picklable():
    subset = ImageSubset(Numbers(), [1, 2])
    assert pickle.loads(pickle.dumps(subset)).source_ids == subset.source_ids
