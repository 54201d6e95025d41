"""Division of source images."""

from __future__ import annotations

import numpy as np
import pytest

from adv_detect.algorithms.splits import keep_copies_together, split_sources
from adv_detect.errors import DataError
from adv_detect.params import SPLITS, SplitParams


def labels_of(counts: list[int], seed: int = 0) -> np.ndarray:
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(labels)


def test_ten_images_of_one_class_are_cut_five_two_three():
    split = split_sources(np.zeros(10, dtype=np.int64), params=SplitParams(), seed=0)

    assert {name: int((split == name).sum()) for name in SPLITS} == {"train": 5, "validation": 2, "test": 3}


def test_every_class_has_the_configured_share_of_every_split():
    labels = labels_of([100, 50, 200])

    split = split_sources(labels, params=SplitParams(train=0.6, validation=0.1, test=0.3), seed=1)

    for label, size in enumerate([100, 50, 200]):
        assert abs((split[labels == label] == "train").sum() - 0.6 * size) <= 1
        assert abs((split[labels == label] == "validation").sum() - 0.1 * size) <= 1
        assert abs((split[labels == label] == "test").sum() - 0.3 * size) <= 1


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    labels = labels_of([30, 30])

    first, again, other = (split_sources(labels, params=SplitParams(), seed=seed) for seed in (3, 3, 4))

    assert (first == again).all()
    assert (first != other).any()


def test_a_draw_is_stratified_and_the_rest_takes_no_part():
    labels = labels_of([100, 300])

    split = split_sources(labels, params=SplitParams(max_images=40), seed=0)

    assert (split != "").sum() == 40
    assert abs((labels[split != ""] == 0).sum() - 10) <= 1


def test_by_identity_no_class_stands_in_two_splits():
    labels = labels_of([7] * 20)

    split = split_sources(labels, params=SplitParams(by="identity"), seed=0)

    found = [set(labels[split == name]) for name in SPLITS]
    assert [len(members) for members in found] == [10, 4, 6]
    assert not (found[0] & found[1])
    assert not (found[0] & found[2])
    assert not (found[1] & found[2])


@pytest.mark.parametrize(("labels", "mode"), [([0, 1], "source"), ([0, 0, 1, 1], "identity")])
def test_too_little_to_divide_is_an_error(labels: list[int], mode: str):
    with pytest.raises(DataError, match="expected at least 3"):
        split_sources(np.array(labels), params=SplitParams(by=mode), seed=0)


def test_copies_follow_the_first_of_them_that_takes_part():
    split = np.array(["", "train", "test", "validation", "test", ""])
    moved = keep_copies_together(split, list("aaabcb"), by="source")
    assert moved.tolist() == ["", "train", "train", "validation", "test", ""]
    left_out = keep_copies_together(split, list("aaabcb"), by="identity")
    assert left_out.tolist() == ["", "train", "", "validation", "test", ""]


def test_splits_without_copies_stay_as_they_are():
    labels = np.repeat(np.arange(4), 25)
    split = split_sources(labels, params=SplitParams(), seed=3)
    kept = keep_copies_together(split, [str(index) for index in range(100)], by="source")
    assert kept.tolist() == split.tolist()
