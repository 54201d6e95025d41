"""Bootstrap intervals of the area under the ROC curve from sums over groups of images, for very many images.

Images are put at random into groups, once and for all detectors, attacks and conditions. A sample of scores is reduced
to two sums per group, its sufficient statistics: of the placements of its adversarial images (the share of natural
images that score lower) and of those of its natural images (the share of adversarial images that score higher). A
resample gives every group of source images and every group of natural images a Poisson weight of mean one, and its area
is, to first order,

    area_b = sum(a_g S_g) / sum(a_g P_g) + sum(d_g T_g) / sum(d_g Q_g) - area,

with sums of placements S and T, counts P and Q and weights a and d (the variance is that of DeLong et al., Biometrics
1988, estimated from groups). What is left out is of the order of 1 / n. As the groups are random, the variance of their
sums is that of the images, known to ``sqrt(2 / G)`` of itself: widths to 2 % for 1,024 groups. The weights belong to
groups of images, so intervals of differences between detectors stay paired, and images of one source are drawn
together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from adv_detect.algorithms.roc import FloatArray, placements
from adv_detect.measures.bootstrap import NATURAL_STREAM, SOURCE_STREAM, AucBootstrap, percentile_interval

Groups: TypeAlias = NDArray[np.uint16]
GROUPS = 1024
COUNTED = 50_000
"""Source images up to which each is counted in every resample; the counts of 1,000 resamples take 200 MB then."""


class Bootstrap(Protocol):
    """Source of resamples, of images or of groups of them."""

    resamples: int

    def natural(self, scores: FloatArray) -> Any:
        """Prepare natural scores."""

    def sums(self, adversarial: FloatArray, natural: Any, *, sources: NDArray[np.intp], n_sources: int) -> Any:
        """Sum up what the area is made of; sums of several samples can be added."""

    def areas(self, sums: Any) -> FloatArray:
        """Area under the ROC curve in every resample."""

    def interval(self, replicates: FloatArray) -> tuple[float, float]:
        """Percentile interval of replicates."""


def choose_bootstrap(n_sources: int, *, resamples: int, confidence_level: float, seed: int) -> Bootstrap:
    """Choose how to resample: image by image up to ``COUNTED`` source images, by groups above.

    Args:
        n_sources: Number of source images.
        resamples: Number of resamples.
        confidence_level: Coverage of an interval, in (0, 1).
        seed: Fixes every draw.

    Returns:
        The bootstrap, for all detectors.

    Raises:
        ConfigurationError: A setting is out of range.
    """
    counted = AucBootstrap(resamples=resamples, confidence_level=confidence_level, seed=seed)
    if n_sources <= COUNTED:
        return counted
    return GroupedBootstrap(resamples=resamples, confidence_level=confidence_level, seed=seed)


@dataclass(frozen=True)
class GroupedNaturals:
    """Natural scores, ready for every comparison with them.

    Attributes:
        ordered: Scores ``(Q,)``, ascending.
        groups: The group of each, ``(Q,)``.
    """

    ordered: FloatArray
    groups: Groups


class GroupedBootstrap:
    """Draws weights of groups once and gives intervals for any number of score samples.

    Args:
        resamples: Number of resamples B.
        confidence_level: Coverage of an interval, in (0, 1).
        seed: Fixes groups and weights.
    """

    def __init__(self, *, resamples: int, confidence_level: float, seed: int) -> None:
        self.resamples = resamples
        self.confidence_level = confidence_level
        self._seed = seed
        self._weights = {
            stream: np.random.default_rng([seed, stream]).poisson(1.0, (resamples, GROUPS)).astype(np.float64)
            for stream in (NATURAL_STREAM, SOURCE_STREAM)
        }
        self._drawn: dict[tuple[int, int], Groups] = {}

    def natural(self, scores: FloatArray) -> GroupedNaturals:
        """Prepare natural scores ``(Q,)``; images must stand in the same order for every detector."""
        order = np.argsort(scores, kind="stable")
        return GroupedNaturals(scores[order], self._groups(NATURAL_STREAM, len(scores))[order])

    def areas(self, sums: FloatArray) -> FloatArray:
        """Area under the ROC curve in every resample.

        Args:
            sums: What `sums` returned; of several samples against the same natural images, such sums added up.

        Returns:
            One area per resample, ``(B,)``; NaN where a resample drew none of these images.
        """
        lower, adversarial, higher, pairs = sums
        of_sources = self._means(SOURCE_STREAM, lower, adversarial)
        area = lower.sum() / adversarial.sum()
        areas: FloatArray = np.clip(of_sources + self._means(NATURAL_STREAM, higher, pairs) - area, 0.0, 1.0)
        return areas

    def sums(
        self, adversarial: FloatArray, natural: GroupedNaturals, *, sources: NDArray[np.intp], n_sources: int
    ) -> FloatArray:
        """Sum up what the area is made of, in every group.

        Args:
            adversarial: Adversarial scores ``(P,)``, at least one.
            natural: What `natural` returned.
            sources: Index of each score's source image ``(P,)``, in ``[0, n_sources)``.
            n_sources: Number of source images to draw from.

        Returns:
            ``(4, G)``: summed placements of adversarial images and their number, by groups of sources; pairs in which
            the natural image scores lower and all pairs, by groups of natural images.
        """
        order = np.argsort(adversarial, kind="stable")
        ordered = adversarial[order]
        groups = self._groups(SOURCE_STREAM, n_sources)[sources[order]]
        higher = 1.0 - _placements(natural.ordered, ordered)
        return np.stack(
            [
                np.bincount(groups, weights=_placements(ordered, natural.ordered), minlength=GROUPS),
                np.bincount(groups, minlength=GROUPS),
                np.bincount(natural.groups, weights=higher, minlength=GROUPS) * len(ordered),
                np.bincount(natural.groups, minlength=GROUPS) * len(ordered),
            ]
        )

    def interval(self, replicates: FloatArray) -> tuple[float, float]:
        """Percentile interval of replicates ``(B,)``; NaN where there are none."""
        return percentile_interval(replicates, self.confidence_level)

    def _means(self, stream: int, totals: FloatArray, counts: FloatArray) -> FloatArray:
        """Weighted means in every resample ``(B,)``, of totals and counts by group."""
        total, count = self._weights[stream] @ totals, self._weights[stream] @ counts
        return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)

    def _groups(self, stream: int, n: int) -> Groups:
        """Give each of n images its group, in groups of equal size; drawn once per stream and n."""
        if (stream, n) not in self._drawn:
            places = np.random.default_rng([self._seed, stream, n]).permutation(n)
            self._drawn[stream, n] = (places % GROUPS).astype(np.uint16)
        return self._drawn[stream, n]


def _placements(scores: FloatArray, ordered: FloatArray) -> FloatArray:
    """Share of other scores that are lower, ties by half; ``(n,)``."""
    below, not_above = placements(scores, ordered)
    return (below + not_above) / (2.0 * len(ordered))
