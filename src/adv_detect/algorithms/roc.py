"""ROC curve, its area and operating points of scores.

A higher score means more likely adversarial; an image is called adversarial when its score is *above* the
threshold (strictly). Only the order of the scores counts, so no value is ever squashed by a sigmoid: scores of
50 and 60 stay apart in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from adv_detect.errors import DataError

FloatArray: TypeAlias = NDArray[np.float64]
BoolArray: TypeAlias = NDArray[np.bool_]
Values: TypeAlias = ArrayLike | Tensor

EQUALLY_NEAR = 1e-12
"""Differences of shares that are rounding alone."""


@dataclass(frozen=True)
class RocCurve:
    """A receiver operating characteristic, from "nothing is flagged" to "everything is flagged".

    Attributes:
        fpr: Share of natural images flagged, ascending, shape ``(P,)``, in [0, 1].
        tpr: Share of adversarial images flagged, ascending, shape ``(P,)``, in [0, 1].
        thresholds: Scores strictly above ``thresholds[i]`` are flagged at point i; the last is minus infinity.
    """

    fpr: FloatArray
    tpr: FloatArray
    thresholds: FloatArray


@dataclass(frozen=True)
class EqualError:
    """Operating point with equal rates of misses and false alarms.

    Attributes:
        rate: The equal error rate, interpolated linearly between neighbouring points of the curve.
        threshold: The threshold whose two error rates lie nearest to each other; of two that are equally near the
            higher, which flags less.
        point: Position of that threshold on the curve.
    """

    rate: float
    threshold: float
    point: int


def to_array(values: Values) -> NDArray[Any]:
    """Return a NumPy array of any array-like or tensor, on whatever device the tensor lies."""
    if isinstance(values, Tensor):
        tensor = values.detach().cpu()
        return np.asarray((tensor.double() if tensor.is_floating_point() else tensor).numpy())
    return np.asarray(values)


def check_scores(values: Values, *, name: str = "scores") -> FloatArray:
    """Check a vector of scores.

    Args:
        values: Scores ``(N,)``, any real dtype.
        name: What the message calls them.

    Returns:
        The scores as float64, which keeps the order of every float32 value.

    Raises:
        DataError: The scores are not a vector or hold NaN.
    """
    array = to_array(values)
    if array.ndim != 1:
        raise DataError(f"expected {name} of shape (N,), got {array.shape}")
    scores = array.astype(np.float64)
    if np.isnan(scores).any():
        count = int(np.isnan(scores).sum())
        raise DataError(f"expected {name} without NaN, got {count} NaN of {len(scores)}; look for a diverged detector")
    return scores


def split_scores(scores: Values, adversarial: Values) -> tuple[FloatArray, FloatArray]:
    """Divide scores by what the images are.

    Args:
        scores: Scores ``(N,)``; higher means more likely adversarial.
        adversarial: What each image is, bool ``(N,)`` or 0/1.

    Returns:
        Scores of the adversarial and of the natural images.

    Raises:
        DataError: Shapes differ, a score is NaN, or one of the two kinds is missing.
    """
    values, flags = check_scores(scores), to_array(adversarial)
    if flags.shape != values.shape:
        raise DataError(f"expected adversarial of the scores' shape {values.shape}, got {flags.shape}")
    flags = flags.astype(bool)
    positives, negatives = values[flags], values[~flags]
    _need_both(positives, negatives)
    return positives, negatives


def _need_both(positives: FloatArray, negatives: FloatArray) -> None:
    if not len(positives) or not len(negatives):
        raise DataError(
            f"expected adversarial and natural images, got {len(positives)} adversarial and {len(negatives)} natural; "
            "an area under the curve needs at least one of each"
        )


def placements(positives: FloatArray, sorted_negatives: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Count, per adversarial score, the natural scores below it and those not above it.

    Args:
        positives: Adversarial scores ``(P,)``.
        sorted_negatives: Natural scores ``(Q,)``, ascending.

    Returns:
        Counts ``(P,)`` of natural scores below, and ``(P,)`` below or equal; they differ where scores tie.
    """
    below = np.searchsorted(sorted_negatives, positives, side="left")
    return below, np.searchsorted(sorted_negatives, positives, side="right")


def roc_auc(scores: Values, adversarial: Values) -> float:
    """Area under the ROC curve, exact; a tie counts one half.

    It is the chance that a random adversarial image scores higher than a random natural one.

    Args:
        scores: Scores ``(N,)``; higher means more likely adversarial.
        adversarial: What each image is, bool ``(N,)``.

    Returns:
        The area, in [0, 1]; 0.5 where all scores are the same.

    Raises:
        DataError: Shapes differ, a score is NaN, or one of the two kinds is missing.
    """
    return area(*split_scores(scores, adversarial))


def area(positives: FloatArray, negatives: FloatArray) -> float:
    """Area under the ROC curve of two checked samples; see `roc_auc`."""
    below, not_above = placements(positives, np.sort(negatives))
    return float(below.sum() + not_above.sum()) / (2.0 * len(positives) * len(negatives))


def curve(positives: FloatArray, negatives: FloatArray) -> RocCurve:
    """Every operating point that a threshold can reach.

    Args:
        positives: Checked adversarial scores ``(P,)``, as from :func:`split_scores`.
        negatives: Checked natural scores ``(Q,)``.

    Returns:
        The curve; one point per distinct score, and the point where everything is flagged.
    """
    distinct = np.unique(np.concatenate([positives, negatives]))[::-1]
    thresholds = np.append(distinct, -np.inf)
    return RocCurve(
        fpr=_share_above(negatives, thresholds), tpr=_share_above(positives, thresholds), thresholds=thresholds
    )


def _share_above(scores: FloatArray, thresholds: FloatArray) -> FloatArray:
    above = len(scores) - np.searchsorted(np.sort(scores), thresholds, side="right")
    return np.asarray(above / len(scores), dtype=np.float64)


def equal_error_rate(roc: RocCurve) -> EqualError:
    """Find where the miss rate equals the false-positive rate.

    Args:
        roc: A curve of `curve`.

    Returns:
        The interpolated rate and the threshold that comes nearest to it.
    """
    gap = roc.fpr - (1.0 - roc.tpr)
    after = int(np.argmax(gap >= 0.0))
    before = max(after - 1, 0)
    step = gap[after] - gap[before]
    weight = -gap[before] / step if step > 0 else 0.0
    rate = roc.fpr[before] + weight * (roc.fpr[after] - roc.fpr[before])
    point = int(np.argmax(np.abs(gap) <= np.abs(gap).min() + EQUALLY_NEAR))
    return EqualError(rate=float(rate), threshold=float(roc.thresholds[point]), point=point)


def _accuracy(positives: FloatArray, negatives: FloatArray, threshold: float) -> float:
    """Share of images that a threshold puts on the right side; at that of equal errors it is not 1 minus the EER."""
    right = (positives > threshold).sum() + (negatives <= threshold).sum()
    return float(right) / (len(positives) + len(negatives))


def nearest_roc_point(roc: RocCurve) -> tuple[float, float]:
    """Point of the curve nearest to the perfect corner (0, 1).

    Args:
        roc: A curve of `curve`.

    Returns:
        False-positive rate and detection rate there; of equally near points the one with fewer false alarms.
    """
    index = int(np.argmin(np.hypot(roc.fpr, 1.0 - roc.tpr)))
    return float(roc.fpr[index]), float(roc.tpr[index])


def ranking_metrics(positives: FloatArray, negatives: FloatArray) -> dict[str, float]:
    """All metrics that need no fixed threshold, of two checked samples.

    Args:
        positives: Adversarial scores ``(P,)``.
        negatives: Natural scores ``(Q,)``.

    Returns:
        ``auc``, ``eer``, ``eer_threshold``, ``eer_accuracy``, ``nearest_fpr``, ``nearest_tpr``. The last five describe
        the test images themselves: their thresholds are read off them.
    """
    roc = curve(positives, negatives)
    equal = equal_error_rate(roc)
    nearest_fpr, nearest_tpr = nearest_roc_point(roc)
    return {
        "auc": area(positives, negatives),
        "eer": equal.rate,
        "eer_threshold": equal.threshold,
        "eer_accuracy": _accuracy(positives, negatives, equal.threshold),
        "nearest_fpr": nearest_fpr,
        "nearest_tpr": nearest_tpr,
    }
