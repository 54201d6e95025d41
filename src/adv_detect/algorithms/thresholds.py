"""Score thresholds at a stated false-positive rate."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from adv_detect.errors import ConfigurationError, DataError


def thresholds_at_fpr(clean_scores: Tensor, fprs: Iterable[float]) -> dict[float, float]:
    """Find, per false-positive rate, the smallest threshold that keeps it on these clean scores.

    The verdict is ``score > threshold`` = adversarial. The threshold is an order statistic: the share of
    ``clean_scores`` strictly above it is at most the rate, and any smaller threshold would exceed the rate. With
    fewer than ``1 / fpr`` scores no false positive is affordable, so the threshold is the largest score; the rate
    that it has on new images is then known poorly, so give more clean images where the rate matters.

    Args:
        clean_scores: Scores of natural images, shape (N,), N >= 1, no NaN.
        fprs: False-positive rates, each in [0, 1).

    Returns:
        Threshold per rate, in the order given.

    Raises:
        DataError: There are no scores, they are not of shape (N,), or one is NaN.
        ConfigurationError: A rate is outside [0, 1).
    """
    if clean_scores.ndim != 1 or len(clean_scores) == 0:
        raise DataError(f"expected clean scores of shape (N,) with N >= 1, got {tuple(clean_scores.shape)}")
    missing = int(clean_scores.isnan().sum())
    if missing:
        raise DataError(f"expected clean scores without NaN, got {missing} NaN among {len(clean_scores)}")
    descending = torch.sort(clean_scores.detach(), descending=True).values
    return {fpr: float(descending[affordable(fpr, len(descending))]) for fpr in fprs}


def affordable(fpr: float, count: int) -> int:
    """Give the largest k with ``k / count <= fpr``, safe from rounding of the product.

    Args:
        fpr: False-positive rate.
        count: Clean images.

    Returns:
        Clean images that may lie above the threshold.

    Raises:
        ConfigurationError: The rate is outside [0, 1).
    """
    if not 0 <= fpr < 1:
        raise ConfigurationError(f"fprs: expected rates in [0, 1), got {fpr}")
    k = min(math.floor(fpr * count) + 1, count)
    while k / count > fpr:
        k -= 1
    return k


def p_values(scores: Tensor, clean_scores: Tensor) -> Tensor:
    """Compute conformal p-values: how unusual a score is among those of clean images.

    A clean image that is exchangeable with the n given ones has a p-value of at most t with probability at most t.

    Source: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005.

    Args:
        scores: Shape (N,), no NaN.
        clean_scores: Scores of clean images, shape (n,), n >= 1, no NaN; in any order.

    Returns:
        ``(1 + #{clean >= score}) / (n + 1)``, float64, shape (N,); at least 1 / (n + 1).

    Raises:
        DataError: There are no clean scores, or a shape is another one.
    """
    if clean_scores.ndim != 1 or scores.ndim != 1 or len(clean_scores) == 0:
        raise DataError(
            f"expected scores of shape (N,) and clean scores of shape (n,) with n >= 1, got {tuple(scores.shape)} and "
            f"{tuple(clean_scores.shape)}"
        )
    ascending = torch.sort(clean_scores.detach().double()).values
    below = torch.searchsorted(ascending, scores.detach().double(), right=False)
    return (1.0 + (len(ascending) - below).double()) / (len(ascending) + 1.0)
