"""False-positive rates of thresholds on clean images of a user's own, and signs that these are not all clean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adv_detect.algorithms.thresholds import thresholds_at_fpr
from adv_detect.measures.clean_flags import clean_flags
from adv_detect.measures.intervals import wilson_interval

FOLDS = 10
EXCESS_LEVEL = 1e-3
"""Probability with which clean images of the detector's own kind lie above its thresholds too often."""
GAP_LEVEL = 1e-5
"""Level for gaps; stricter, since not all tails are exponential."""
APART_SHARE = 0.6
"""Share of the scores, from the highest down, among which a gap is looked for."""
FEWEST_APART = 3
"""Fewer images that lie apart are outliers, not a group."""
AS_EXPECTED, MORE_ABOVE, TWO_GROUPS = "as expected", "more above the thresholds", "two groups"


@dataclass(frozen=True)
class Gap:
    """The most unlikely gap among the upper scores.

    Attributes:
        above: Images above it; 0 where there are too few images to look for one.
        low: Largest score below the gap.
        high: Smallest score above it.
        p_value: Probability of one as wide among scores with an exponential tail.
    """

    above: int
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class MixtureCheck:
    """Signs that images are not all clean.

    Attributes:
        verdict: ``as expected``, ``more above the thresholds`` or ``two groups``.
        excess: Probability that as many images of the detector's own kind lie above its thresholds, at the rate at
            which that is least likely; corrected for the number of rates.
        gap: The most unlikely gap among the upper scores.
    """

    verdict: str
    excess: float
    gap: Gap


def images_needed(fpr: float) -> int:
    """Count the clean images that a rate needs: with fewer, none may lie above the threshold."""
    return math.ceil(1 / fpr - 1e-9)


def images_for_half(fpr: float) -> int:
    """Count the clean images whose share has a 95 % interval of half the rate to either side (normal approximation)."""
    from scipy.stats import norm

    return math.ceil((2 * float(norm.ppf(0.975))) ** 2 * (1 - fpr) / fpr)


def rate_table(shipped: Tensor, scores: Tensor, fprs: tuple[float, ...], *, seed: int) -> pd.DataFrame:
    """Compare thresholds before and after on the same images.

    Args:
        shipped: Clean scores ``(m,)`` that the thresholds rest on so far.
        scores: Scores ``(n,)`` of the user's own clean images.
        fprs: False-positive rates.
        seed: Of the folds.

    Returns:
        One row per rate: fpr, threshold_before, n_before (images that it rests on), rate_before (share of the user's
        images above it), before_low, before_high (95 %, Wilson), threshold_after, n (images), rate_after (share above
        the threshold that the other nine tenths of the images give), after_low, after_high, true_low, true_high (95 %
        interval of the rate on further images of the kind, from the beta distribution of an order statistic),
        n_for_half (images for an interval of half the rate to either side).
    """
    before, after = thresholds_at_fpr(shipped, fprs), thresholds_at_fpr(scores, fprs)
    rows = []
    for fpr in fprs:
        own, held_out = scores > before[fpr], _held_out_above(scores, fpr, seed)
        low, high = order_statistic_interval(int((scores > after[fpr]).sum()), len(scores))
        rows.append(
            {"fpr": fpr, "threshold_before": before[fpr], "n_before": len(shipped)}
            | _share("before", own)
            | {"threshold_after": after[fpr], "n": len(scores)}
            | _share("after", held_out)
            | {"true_low": low, "true_high": high, "n_for_half": images_for_half(fpr)}
        )
    return pd.DataFrame(rows)


def order_statistic_interval(above: int, n: int) -> tuple[float, float]:
    """Give the 95 % interval of the rate at which further images exceed an order statistic of n scores.

    Args:
        above: Scores above it.
        n: Scores in all.

    Returns:
        Quantiles of the beta distribution with the parameters ``above + 1`` and ``n - above``.
    """
    from scipy.stats import beta

    low, high = beta.ppf((0.025, 0.975), above + 1, n - above)
    return float(low), float(high)


def check_mixture(shipped: Tensor, scores: Tensor, fprs: tuple[float, ...]) -> MixtureCheck:
    """Look for signs that images are not all clean.

    Two are looked for. More images may lie above the shipped thresholds than their rates allow, which attacked
    images cause, and as well another camera or crop. Or the images above a gap among the upper scores form a group of
    their own, which a mixture of clean and attacked ones causes, and no mere change of scale.

    Args:
        shipped: Clean scores ``(m,)`` that the thresholds rest on so far.
        scores: Scores ``(n,)`` of the images.
        fprs: False-positive rates.

    Returns:
        The check.
    """
    excess = min(1.0, len(fprs) * min(excess_p_value(shipped, scores, fpr) for fpr in fprs))
    gap = widest_gap(scores)
    apart = gap.p_value < GAP_LEVEL and gap.above >= FEWEST_APART
    verdict = TWO_GROUPS if apart else MORE_ABOVE if excess < EXCESS_LEVEL else AS_EXPECTED
    return MixtureCheck(verdict, excess, gap)


def excess_p_value(shipped: Tensor, scores: Tensor, fpr: float) -> float:
    """Test how many images lie above a shipped threshold (:func:`~adv_detect.measures.clean_flags.clean_flags`).

    Args:
        shipped: Clean scores ``(m,)`` that the threshold rests on.
        scores: Scores ``(n,)`` of the images.
        fpr: False-positive rate of the threshold.

    Returns:
        Probability of at least as many.
    """
    threshold = thresholds_at_fpr(shipped, [fpr])[fpr]
    clean = clean_flags(len(scores), above=int((shipped > threshold).sum()), n_clean=len(shipped))
    return float(clean.sf(int((scores > threshold).sum()) - 1))


def widest_gap(scores: Tensor) -> Gap:
    """Find the most unlikely gap among the upper scores.

    The spacings of an exponential tail, each times its rank from the top, are independent and exponential (Renyi 1953)
    whatever the scale, so that the share of the largest in their sum has Fisher's distribution (Fisher 1929). Among
    200 to 1,000 scores with other tails (normal, log-normal, Student's of three degrees of freedom) at most one set in
    twenty-five lay below `GAP_LEVEL` in simulations.

    Args:
        scores: Scores ``(n,)`` of the images.

    Returns:
        The gap.
    """
    falling = np.sort(scores.double().numpy())[::-1]
    count = int(APART_SHARE * len(falling))
    spacings = np.arange(1, count + 1) * (falling[:count] - falling[1 : count + 1])
    if count < 2 or spacings.sum() <= 0:
        return Gap(0, float("nan"), float("nan"), 1.0)
    place = int(spacings.argmax())
    share = float(spacings[place] / spacings.sum())
    return Gap(place + 1, float(falling[place + 1]), float(falling[place]), largest_share_p_value(share, count))


def largest_share_p_value(share: float, count: int) -> float:
    """Return the probability that the largest of some exponential numbers has at least a share in their sum.

    Args:
        share: The share, in (0, 1].
        count: How many numbers there are.

    Returns:
        An upper bound of Fisher's probability, its first term, exact where the share is above one half.
    """
    return min(1.0, count * (1.0 - share) ** (count - 1))


def _held_out_above(scores: Tensor, fpr: float, seed: int) -> Tensor:
    """Tell of each image whether it lies above the threshold that the other folds give."""
    order = np.random.default_rng(seed).permutation(len(scores))
    above = torch.zeros(len(scores), dtype=torch.bool)
    for fold in np.array_split(order, min(FOLDS, len(scores))):
        others = torch.from_numpy(np.setdiff1d(order, fold))
        own = torch.from_numpy(fold)
        above[own] = scores[own] > thresholds_at_fpr(scores[others], [fpr])[fpr]
    return above


def _share(name: str, happened: Tensor) -> dict[str, float]:
    low, high = wilson_interval(int(happened.sum()), len(happened))
    return {f"rate_{name}": float(happened.double().mean()), f"{name}_low": low, f"{name}_high": high}
