from __future__ import annotations

import numpy as np
import pytest
import torch

from adv_detect.algorithms.roc import (
    curve,
    equal_error_rate,
    nearest_roc_point,
    ranking_metrics,
    roc_auc,
    split_scores,
)
from adv_detect.errors import DataError

# Natural: 0, 1, 2, 3; adversarial: 1.5, 2, 4, 5. Of 16 pairs 12 are in order, one (2, 2) ties.
SCORES = np.array([0.0, 1.0, 2.0, 3.0, 1.5, 2.0, 4.0, 5.0])
ADVERSARIAL = np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=bool)


def sample(seed: int, n: int = 200, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    adversarial = rng.random(n) < 0.4
    scores = rng.normal(size=n) + adversarial
    return (np.round(scores, 1) if ties else scores), adversarial


def roc_of(scores, adversarial):
    return curve(*split_scores(scores, adversarial))


def test_auc_by_hand() -> None:
    in_order = 2 + 2 + 4 + 4
    assert roc_auc(SCORES, ADVERSARIAL) == (in_order + 0.5) / 16


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_auc_agrees_with_scikit_learn(seed: int, ties: bool) -> None:
    from sklearn.metrics import roc_auc_score

    scores, adversarial = sample(seed, ties=ties)
    assert roc_auc(scores, adversarial) == pytest.approx(roc_auc_score(adversarial, scores), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_curve_agrees_with_scikit_learn(seed: int) -> None:
    from sklearn.metrics import roc_curve as reference

    scores, adversarial = sample(seed, ties=True)
    fpr, tpr, _ = reference(adversarial, scores, drop_intermediate=False)
    roc = roc_of(scores, adversarial)
    np.testing.assert_allclose(roc.fpr, fpr)
    np.testing.assert_allclose(roc.tpr, tpr)
    assert np.trapezoid(roc.tpr, roc.fpr) == pytest.approx(roc_auc(scores, adversarial))


def test_thresholds_of_the_curve_are_strict() -> None:
    scores, adversarial = sample(0, ties=True)
    roc = roc_of(scores, adversarial)
    for fpr, tpr, threshold in zip(roc.fpr, roc.tpr, roc.thresholds, strict=True):
        assert (scores[~adversarial] > threshold).mean() == fpr
        assert (scores[adversarial] > threshold).mean() == tpr


@pytest.mark.parametrize("change", [lambda s: 3 * s + 7, np.exp, lambda s: s**3])
def test_only_the_order_counts(change: object) -> None:
    scores, adversarial = sample(1)
    assert roc_auc(change(scores), adversarial) == roc_auc(scores, adversarial)  # type: ignore[operator]


def test_swapping_the_kinds_mirrors_the_area() -> None:
    scores, adversarial = sample(2, ties=True)
    assert roc_auc(scores, ~adversarial) == pytest.approx(1 - roc_auc(scores, adversarial))
    assert roc_auc(-scores, adversarial) == pytest.approx(1 - roc_auc(scores, adversarial))


def test_large_scores_in_float32_keep_their_order() -> None:
    scores = torch.tensor([17.0, 18.0, 40.0, 90.0, 19.0, 41.0, 91.0, 200.0], dtype=torch.float32)
    assert torch.sigmoid(scores[3]) == torch.sigmoid(scores[7])
    assert roc_auc(scores, ADVERSARIAL) == 13 / 16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_any_precision_and_with_gradient(dtype: torch.dtype) -> None:
    scores = torch.tensor(SCORES, dtype=dtype, requires_grad=True)
    assert roc_auc(scores, torch.tensor(ADVERSARIAL)) == roc_auc(SCORES, ADVERSARIAL)


def test_constant_scores_are_chance() -> None:
    metrics = ranking_metrics(np.full(3, 2.0), np.full(7, 2.0))
    assert metrics["auc"] == 0.5
    assert metrics["eer"] == 0.5
    assert metrics["eer_accuracy"] == 0.7
    assert (metrics["nearest_fpr"], metrics["nearest_tpr"]) == (0.0, 0.0)


def test_perfect_separation() -> None:
    metrics = ranking_metrics(np.array([5.0, 6.0]), np.array([1.0, 2.0]))
    assert metrics == {
        "auc": 1.0, "eer": 0.0, "eer_threshold": 2.0, "eer_accuracy": 1.0, "nearest_fpr": 0.0, "nearest_tpr": 1.0,
    }  # fmt: skip


def test_equal_error_by_hand() -> None:
    equal = equal_error_rate(roc_of(SCORES, ADVERSARIAL))
    # Above 2: one of 4 false, 2 of 4 missed. Above 1.5: 2 of 4 false, 1 of 4 missed. They meet half-way.
    assert equal.rate == pytest.approx(0.375)
    assert equal.threshold == 2.0


TIED = np.array([3.0, 2.0, 1.0, 2.0, 1.0, 0.0])
TIED_KINDS = np.array([1, 1, 1, 0, 0, 0], dtype=bool)


def test_equal_error_with_ties_by_hand() -> None:
    equal = equal_error_rate(roc_of(TIED, TIED_KINDS))
    # Above 2: 0 of 3 false, 2 of 3 missed. Above 1: 1 of 3 and 1 of 3, one of each kind with each tied score.
    assert equal.rate == pytest.approx(1 / 3)
    assert (equal.threshold, equal.point) == (1.0, 2)


def test_of_two_thresholds_that_are_equally_near_the_one_that_flags_less_is_taken() -> None:
    # Natural 0 0 1, adversarial 1 1 2. Above 1: 0 of 3 false, 2 of 3 missed. Above 0: 1 of 3 false, none missed.
    # With one more adversarial 2 it is 0 and 2 of 4 against 1 of 3 and 0: gaps of -1/2 and +1/3.
    near = equal_error_rate(roc_of([0, 0, 1, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1, 1]))
    assert (near.threshold, near.point) == (0.0, 2)
    # Natural 0 0 1, adversarial 1 2 2: gaps of -1/3 and +1/3, which floats tell apart.
    even = equal_error_rate(roc_of([0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1]))
    assert (even.threshold, even.point) == (1.0, 1)
    assert even.rate == pytest.approx(1 / 6)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equal_error_agrees_with_root_finding_on_the_curve_of_scikit_learn(seed: int, ties: bool) -> None:
    from scipy.interpolate import interp1d
    from scipy.optimize import brentq
    from sklearn.metrics import roc_curve as reference

    scores, adversarial = sample(seed, ties=ties)
    roc = roc_of(scores, adversarial)
    fpr, tpr, _ = reference(adversarial, scores, drop_intermediate=False)
    steps = np.arange(len(fpr))
    gap = interp1d(steps, fpr + tpr - 1)
    expected = float(interp1d(steps, fpr)(brentq(gap, 0, len(steps) - 1)))
    assert equal_error_rate(roc).rate == pytest.approx(expected, abs=1e-9)


def test_accuracy_at_the_equal_error_threshold_is_not_the_equal_error_rate() -> None:
    scores, adversarial = sample(3)
    metrics = ranking_metrics(*split_scores(scores, adversarial))
    flagged = scores > metrics["eer_threshold"]
    assert metrics["eer_accuracy"] == pytest.approx((flagged == adversarial).mean())
    assert metrics["eer_accuracy"] == pytest.approx(1 - metrics["eer"], abs=0.02)


def test_nearest_point_minimises_the_distance() -> None:
    roc = roc_of(*sample(4))
    fpr, tpr = nearest_roc_point(roc)
    assert np.hypot(fpr, 1 - tpr) == np.hypot(roc.fpr, 1 - roc.tpr).min()


@pytest.mark.parametrize("kind", [True, False])
def test_one_kind_alone_is_an_error(kind: bool) -> None:
    with pytest.raises(DataError, match="expected adversarial and natural images, got"):
        roc_auc(SCORES, np.full(8, kind))


def test_nan_is_an_error() -> None:
    with pytest.raises(DataError, match="got 1 NaN of 8"):
        roc_auc(np.where(SCORES == 5, np.nan, SCORES), ADVERSARIAL)


def test_wrong_shapes_are_errors() -> None:
    with pytest.raises(DataError, match=r"expected scores of shape \(N,\), got \(8, 1\)"):
        roc_auc(SCORES[:, None], ADVERSARIAL)
    with pytest.raises(DataError, match=r"expected adversarial of the scores' shape \(8,\), got \(3,\)"):
        split_scores(SCORES, ADVERSARIAL[:3])


def test_inputs_stay_as_they_are() -> None:
    scores, adversarial = SCORES[::-1].copy(), ADVERSARIAL[::-1].copy()
    roc_auc(scores, adversarial)
    roc_of(scores, adversarial)
    np.testing.assert_array_equal(scores, SCORES[::-1])
    np.testing.assert_array_equal(adversarial, ADVERSARIAL[::-1])
