from __future__ import annotations

import numpy as np
import pytest

from adv_detect.errors import ConfigurationError, DataError
from adv_detect.measures.faces.decisions import best_threshold, clean_threshold, fold_accuracy, fooled_pairs


def accuracy(scores: np.ndarray, same: np.ndarray, threshold: float) -> float:
    return float(((scores >= threshold) == same).mean())


def noisy(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(0, 1, n).round(1) + np.arange(n) % 2, np.arange(n) % 2 == 1


def test_best_threshold_by_hand():
    assert best_threshold(np.array([0.1, 0.3, 0.7, 0.9]), np.array([False, False, True, True])) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_is_as_good_as_any(seed):
    scores, same = noisy(101, seed)
    candidates = [*np.unique(scores), np.inf]
    best = max(accuracy(scores, same, candidate) for candidate in candidates)
    assert accuracy(scores, same, best_threshold(scores, same)) == pytest.approx(best)


@pytest.mark.parametrize(("same", "right"), [(True, 1.0), (False, 1.0)])
def test_best_threshold_of_one_kind(same, right):
    scores = np.array([0.2, 0.5, 0.5])
    flags = np.full(3, same)
    assert accuracy(scores, flags, best_threshold(scores, flags)) == right


def test_neighbouring_scores_are_divided_all_the_same():
    low = 0.1
    scores = np.array([low, np.nextafter(low, 1)])
    same = np.array([False, True])
    assert accuracy(scores, same, best_threshold(scores, same)) == 1.0


def test_each_fold_uses_the_threshold_of_the_others():
    scores = np.array([0.1, 0.9, 0.5, 0.7])
    same = np.array([False, True, False, True])
    result = fold_accuracy(scores, same, np.array([0, 0, 1, 1]))
    assert result.thresholds == pytest.approx((0.6, 0.5))
    assert result.accuracies == (1.0, 0.5)
    assert result.mean == pytest.approx(0.75)
    assert result.standard_error == pytest.approx(np.std([1, 0.5], ddof=1) / np.sqrt(2))


def test_one_fold_is_an_error():
    with pytest.raises(DataError, match=r"at least two folds, got .* 1 folds"):
        fold_accuracy(np.array([0.1, 0.9]), np.array([False, True]), np.array([0, 0]))


def test_clean_threshold_rules():
    scores = np.array([0.9, 0.8, 0.6, 0.4, 0.7, 0.5, 0.3, 0.1])
    same = np.array([True] * 4 + [False] * 4)
    assert clean_threshold(scores, same, rule="eer") == 0.6
    assert clean_threshold(scores, same, rule=0.25) == 0.6
    assert clean_threshold(scores, same) == best_threshold(scores, same)
    with pytest.raises(ConfigurationError, match="'accuracy', 'eer' or a false-accept rate, got 'best'"):
        clean_threshold(scores, same, rule="best")


def test_fooled_pairs_by_hand():
    same = np.array([True, True, True, False, False, False, False])
    clean = np.array([0.9, 0.8, 0.2, 0.1, 0.2, 0.7, 0.0])
    attacked = np.array([0.1, 0.8, 0.1, 0.6, 0.5, 0.7, 0.1])
    impersonation, dodging = fooled_pairs(clean, attacked, same, threshold=0.5)
    assert (impersonation.attack, impersonation.n, impersonation.n_correct) == ("impersonation", 4, 3)
    assert (impersonation.clean_rate, impersonation.attacked_rate) == (0.25, 0.75)
    assert impersonation.fooled_rate == pytest.approx(2 / 3)
    assert impersonation.attacked_low < 0.75 < impersonation.attacked_high
    assert (dodging.attack, dodging.n, dodging.n_correct) == ("dodging", 3, 2)
    assert (dodging.clean_rate, dodging.attacked_rate) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert dodging.fooled_rate == 0.5


def test_a_kind_without_pairs_is_left_out():
    scores = np.array([0.2, 0.9])
    (only,) = fooled_pairs(scores, scores, np.array([True, True]), threshold=0.5)
    assert (only.attack, only.fooled_rate) == ("dodging", 0.0)


def test_nothing_right_to_begin_with():
    scores = np.array([0.2, 0.3])
    (only,) = fooled_pairs(scores, scores, np.array([True, True]), threshold=0.5)
    assert np.isnan(only.fooled_rate)
    assert only.attacked_rate == 1.0


def test_wrong_shapes():
    with pytest.raises(DataError, match=r"got \(2,\) and \(3,\)"):
        fooled_pairs(np.zeros(3), np.zeros(2), np.ones(3, dtype=bool), threshold=0.5)
