from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from adv_detect.errors import ConfigurationError, DataError
from adv_detect.measures.faces.draw import draw_pairs

COUNTS = (40, 12, 10, 9, 8, 8, 7, 6, 2, 1)
LABELS = np.repeat(np.arange(len(COUNTS)), COUNTS)
IDS = [f"{label}/{label}_{index}" for index, label in enumerate(LABELS)]


def draw(n: int = 80, folds: int = 2, seed: int = 0):
    return draw_pairs(LABELS, n, source_ids=IDS, seed=seed, folds=folds)


def test_flags_positions_and_names_agree():
    drawn = draw()
    first, second = np.array(drawn.first), np.array(drawn.second)
    assert [pair.same for pair in drawn.pairs] == (LABELS[first] == LABELS[second]).tolist()
    assert [pair.first for pair in drawn.pairs] == [IDS[row] for row in first]
    assert drawn.missing == ()


def test_balanced_over_kinds_and_folds():
    counts = Counter((pair.fold, pair.same) for pair in draw().pairs)
    assert counts == {(fold, same): 20 for fold in (0, 1) for same in (True, False)}


def test_no_pair_twice_and_none_of_an_image_with_itself():
    drawn = draw(n=200)
    sets = [frozenset(pair) for pair in zip(drawn.first, drawn.second, strict=True)]
    assert all(len(pair) == 2 for pair in sets)
    assert len(set(sets)) == 200


def test_folds_share_no_identity():
    drawn = draw()
    seen = [set(), set()]
    for pair, one, two in zip(drawn.pairs, drawn.first, drawn.second, strict=True):
        seen[pair.fold] |= {LABELS[one], LABELS[two]}
    assert not seen[0] & seen[1]


def test_the_largest_identity_does_not_dominate():
    drawn = draw_pairs(LABELS, 40, source_ids=IDS, seed=0, folds=1)
    same = Counter(LABELS[one] for pair, one in zip(drawn.pairs, drawn.first, strict=True) if pair.same)
    assert max(same.values()) <= 4
    assert sum(same.values()) == 20


def test_repeatable():
    assert draw(seed=3) == draw(seed=3)
    assert draw(seed=3) != draw(seed=4)


def test_all_pairs_there_are():
    labels = np.array([0, 0, 0, 1, 1])
    drawn = draw_pairs(labels, 8, source_ids=list("abcde"), seed=0, folds=1)
    assert sum(pair.same for pair in drawn.pairs) == 4
    same = {frozenset((pair.first, pair.second)) for pair in drawn.pairs if pair.same}
    assert same == {frozenset(pair) for pair in ("ab", "ac", "bc", "de")}


def test_too_few_images():
    labels = np.array([0, 0, 1, 1])
    with pytest.raises(DataError, match="at least 3 different pairs of same person in a fold, got 2"):
        draw_pairs(labels, 6, source_ids=list("abcd"), seed=0, folds=1)


def test_too_few_different_people():
    labels = np.array([0, 0, 0, 0, 1])
    with pytest.raises(DataError, match="at least 5 different pairs of different people in a fold, got 4"):
        draw_pairs(labels, 10, source_ids=list("abcde"), seed=0, folds=1)


def test_too_few_identities():
    with pytest.raises(DataError, match="at least 2 identities per fold, got 10 for 6 folds"):
        draw(folds=6)


def test_odd_number():
    with pytest.raises(DataError, match=r"expected an even n .* got n=7"):
        draw(n=7)


def test_fewer_pairs_than_folds():
    with pytest.raises(ConfigurationError, match="got 1 in 2"):
        draw(n=2)
