"""Thresholds of a similarity at a stated share of clean pairs of the same person that are turned away."""

from __future__ import annotations

from torch import Tensor

from adv_detect.algorithms.thresholds import affordable, thresholds_at_fpr
from adv_detect.errors import DataError


def threshold_at_rejection(same: Tensor, rate: float) -> float:
    """Find the similarity from which a pair passes.

    Args:
        same: Similarities of clean pairs of the same person, ``(n,)``, no NaN.
        rate: Share of them that may be turned away, in (0, 1).

    Returns:
        The largest threshold below which no larger share lies: one of the similarities.

    Raises:
        DataError: One is NaN, or there are so few that not one of them may be turned away.
        ConfigurationError: The rate is outside [0, 1).
    """
    if not carries(len(same), rate):
        raise DataError(
            f"expected at least {pairs_needed(rate)} clean pairs of the same person for a rate of {rate:g}, got "
            f"{len(same)}; give more clean images of each person, or ask for a higher rate"
        )
    return -thresholds_at_fpr(-same.double(), [rate])[rate]


def carries(count: int, rate: float) -> bool:
    """Tell whether so many clean pairs fix a threshold at a rate.

    Args:
        count: Clean pairs.
        rate: Share of them that may be turned away.

    Returns:
        Whether at least one of them may be.
    """
    return count > 0 and affordable(rate, count) > 0


def pairs_needed(rate: float) -> int:
    """Count the clean pairs that fix a threshold at a rate.

    Args:
        rate: Share of them that may be turned away, in (0, 1).

    Returns:
        The least number for which :func:`carries` holds.
    """
    count = max(int(1 / rate) - 1, 1)
    while not carries(count, rate):
        count += 1
    return count
