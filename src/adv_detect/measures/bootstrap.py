"""Bootstrap intervals of the area under the ROC curve, for many rows of one table at once.

Natural and adversarial images are resampled apart (stratified). Resampling is done on counts: how often each image
stands in each resample is a column of a matrix, drawn once and used for every detector and attack. So intervals of
different detectors are paired (the same images were drawn), and a row costs a few passes over an ``(n, B)`` matrix
instead of B sorts: the weighted share of natural images below each adversarial one is read off one cumulative sum.
Adversarial images of the same source image are drawn together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from adv_detect.algorithms.roc import FloatArray, placements
from adv_detect.errors import ConfigurationError

Counts: TypeAlias = NDArray[np.float32]
BLOCK_ELEMENTS = 4_000_000
NATURAL_STREAM, SOURCE_STREAM = 0, 1


@dataclass(frozen=True)
class NaturalSample:
    """Natural scores, ready for every comparison with them.

    Attributes:
        ordered: Scores ``(Q,)``, ascending.
        cumulative: ``cumulative[q, b]`` is the share of resample b among the first q natural scores, ``(Q + 1, B)``.
    """

    ordered: FloatArray
    cumulative: Counts


class AucBootstrap:
    """Draws resamples once and gives intervals for any number of score samples.

    Args:
        resamples: Number of resamples B; 0 gives intervals of NaN.
        confidence_level: Coverage of an interval, in (0, 1).
        seed: Fixes every draw.
    """

    def __init__(self, *, resamples: int = 1000, confidence_level: float = 0.95, seed: int = 0) -> None:
        if resamples < 0 or not 0.0 < confidence_level < 1.0:
            raise ConfigurationError(
                "bootstrap: expected resamples >= 0 and 0 < confidence_level < 1, "
                f"got resamples={resamples}, confidence_level={confidence_level}"
            )
        self.resamples = resamples
        self.confidence_level = confidence_level
        self._seed = seed
        self._drawn: dict[tuple[int, int], Counts] = {}

    def natural(self, scores: FloatArray) -> NaturalSample:
        """Prepare natural scores ``(Q,)``; images must stand in the same order for every detector."""
        order = np.argsort(scores, kind="stable")
        counts = self._counts(NATURAL_STREAM, len(scores))
        cumulative = np.zeros((len(scores) + 1, self.resamples), dtype=np.float32)
        np.cumsum(counts[order], axis=0, out=cumulative[1:])
        return NaturalSample(scores[order], cumulative / np.float32(len(scores)))

    def areas(self, sums: FloatArray) -> FloatArray:
        """Area under the ROC curve in every resample.

        Args:
            sums: What `sums` returned; of several samples against the same natural images, such sums added up.

        Returns:
            One area per resample, ``(B,)``; NaN where a resample drew none of these images.
        """
        total, weight = sums
        return np.where(weight > 0, total / np.maximum(weight, 1.0), np.nan)

    def sums(
        self, adversarial: FloatArray, natural: NaturalSample, *, sources: NDArray[np.intp], n_sources: int
    ) -> FloatArray:
        """Sum up what the area is made of, in every resample.

        Args:
            adversarial: Adversarial scores ``(P,)``.
            natural: What `natural` returned.
            sources: Index of each score's source image ``(P,)``, in ``[0, n_sources)``.
            n_sources: Number of source images to draw from.

        Returns:
            Summed shares of natural images below each adversarial one that was drawn, and how many were drawn,
            ``(2, B)``.
        """
        counts = self._counts(SOURCE_STREAM, n_sources)
        below, not_above = placements(adversarial, natural.ordered)
        tied = bool((below != not_above).any())
        total = np.zeros(self.resamples)
        weight = np.zeros(self.resamples)
        block = max(1, BLOCK_ELEMENTS // max(1, self.resamples))
        for start in range(0, len(adversarial), block):
            part = slice(start, start + block)
            drawn = counts[sources[part]]
            share = natural.cumulative[below[part]]
            if tied:
                share = (share + natural.cumulative[not_above[part]]) / np.float32(2)
            total += np.einsum("pb,pb->b", drawn, share)
            weight += drawn.sum(axis=0)
        return np.stack([total, weight])

    def interval(self, replicates: FloatArray) -> tuple[float, float]:
        """Percentile interval of replicates ``(B,)``; NaN where there are none."""
        return percentile_interval(replicates, self.confidence_level)

    def _counts(self, stream: int, n: int) -> Counts:
        """Count each of n images in each resample, ``(n, B)``; drawn once per stream and n."""
        if (stream, n) not in self._drawn:
            rng = np.random.default_rng([self._seed, stream, n])
            counts = np.empty((n, self.resamples), dtype=np.float32)
            for column in range(self.resamples):
                counts[:, column] = np.bincount(rng.integers(0, n, n), minlength=n)
            self._drawn[stream, n] = counts
        return self._drawn[stream, n]


def percentile_interval(replicates: FloatArray, confidence_level: float) -> tuple[float, float]:
    """Percentile interval of replicates ``(B,)``; NaN where there are none."""
    usable = replicates[~np.isnan(replicates)]
    if not len(usable):
        return float("nan"), float("nan")
    tail = 50.0 * (1.0 - confidence_level)
    low, high = np.percentile(usable, [tail, 100.0 - tail])
    return float(low), float(high)
