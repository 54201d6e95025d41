from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from adv_detect.errors import ConfigurationError, DataError
from adv_detect.measures.faces.verification import add_mirrored, cosine_similarities, verify

SCORES = np.array([0.9, 0.8, 0.6, 0.4, 0.7, 0.5, 0.3, 0.1])
SAME = np.array([True] * 4 + [False] * 4)


def noisy(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return np.concatenate([generator.normal(1, 1, n), generator.normal(-1, 1, n)]), np.repeat([True, False], n)


def test_cosine_by_hand():
    first, second = (
        torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]),
        torch.tensor([[6.0, 8.0], [0.0, 2.0], [1.0, 1.0]]),
    )
    assert cosine_similarities(first, second).tolist() == pytest.approx([1.0, 0.0, 0.0])


def test_cosine_of_unequal_shapes():
    with pytest.raises(DataError, match=r"equal shape \(N, D\) on both sides, got \(2, 3\) and \(2, 4\)"):
        cosine_similarities(torch.zeros(2, 3), torch.zeros(2, 4))


def test_mirrored_sum():
    assert torch.equal(
        add_mirrored(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, -2.0]])), torch.tensor([[1.5, 0.0]])
    )


def test_rates_by_hand():
    result = verify(SCORES, SAME, fars=(0.25, 0.5))
    assert [(rate.realised_far, rate.tar, rate.threshold) for rate in result.accept_rates] == [
        (0.25, 0.75, 0.6),
        (0.5, 1.0, 0.4),
    ]
    assert result.eer == pytest.approx(0.25)
    assert result.eer_threshold == 0.6
    assert (result.n_same, result.n_different) == (4, 4)
    assert result.auc == pytest.approx(13 / 16)


def test_threshold_realises_its_rates():
    scores, same = noisy(500)
    for rate in verify(scores, same).accept_rates:
        accepted = scores >= rate.threshold
        assert accepted[~same].mean() == pytest.approx(rate.realised_far)
        assert accepted[~same].mean() <= rate.far
        assert accepted[same].mean() == pytest.approx(rate.tar)


def test_eer_of_two_gaussians():
    scores, same = noisy(20_000)
    assert verify(scores, same).eer == pytest.approx(0.1587, abs=0.005)


def test_auc_agrees_with_sklearn_and_does_not_saturate():
    scores, same = noisy(300)
    far_away = scores + 100
    assert verify(far_away, same).auc == pytest.approx(roc_auc_score(same, scores))


def test_perfect_separation():
    result = verify(np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, True, False, False]), fars=(0.5,))
    assert (result.eer, result.auc, result.accept_rates[0].tar) == (0.0, 1.0, 1.0)
    assert result.eer_threshold == 0.8


def test_ties_by_hand():
    # From 3 on: 1 of 3 accepted, 0 of 3 false. From 2 on: 2 of 3 and 1 of 3, so that both errors are 1 of 3.
    result = verify(np.array([3.0, 2.0, 1.0, 2.0, 1.0, 0.0]), np.array([True] * 3 + [False] * 3), fars=(0.4,))
    assert (result.eer, result.eer_threshold) == (pytest.approx(1 / 3), 2.0)
    assert (result.accept_rates[0].tar, result.accept_rates[0].threshold) == (pytest.approx(2 / 3), 2.0)
    assert result.auc == pytest.approx((1 + 1 + 1 + 0.5 + 1 + 1 + 0 + 0.5 + 1) / 9)


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_the_curve_is_that_of_scikit_learn(digits):
    scores, same = noisy(200)
    rounded = scores.round(digits)
    far, tar, thresholds = roc_curve(same, rounded, drop_intermediate=False)

    found = verify(rounded, same).roc

    np.testing.assert_allclose(found.far, far)
    np.testing.assert_allclose(found.tar, tar)
    np.testing.assert_array_equal(found.thresholds, thresholds)


def test_all_scores_equal():
    result = verify(np.full(6, 0.3), np.array([True] * 3 + [False] * 3), fars=(0.1,))
    assert (result.eer, result.eer_threshold) == (pytest.approx(0.5), 0.3)
    assert (result.accept_rates[0].tar, result.accept_rates[0].threshold) == (0.0, float("inf"))


@pytest.mark.parametrize(
    ("n", "note"),
    [
        (500, "no false accept is allowed among 500 different pairs; 1000 are needed"),
        (3000, "rests on 3 false accepts among 3000 different pairs"),
        (10_000, ""),
    ],
)
def test_says_when_there_are_too_few_pairs(n, note):
    scores, same = noisy(n)
    assert verify(scores, same, fars=(1e-3,)).accept_rates[0].note == note


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        (SCORES, SAME[:3], r"shape \(N,\), N >= 1, got \(8,\) and \(3,\)"),
        (SCORES, SAME.astype(int), "boolean flags .* int64"),
        (np.where(SCORES > 0.8, np.nan, SCORES), SAME, "without NaN, got 1 among 8"),
        (SCORES, np.ones(8, dtype=bool), "got 8 of same person only"),
        (SCORES, np.zeros(8, dtype=bool), "got 8 of different people only"),
    ],
)
def test_wrong_scores(scores, same, message):
    with pytest.raises(DataError, match=message):
        verify(scores, same)


def test_wrong_rate():
    with pytest.raises(ConfigurationError, match=r"expected values in \(0, 1\), got 1"):
        verify(SCORES, SAME, fars=(1,))
