"""Bands of natural images: how far from their own class clean images lie, by class and layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.distances import ClassDistances
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import DataError

DISTANCE = "mahalanobis"
"""Distance to the centroids that bands are made of; whitened, so that layers are comparable."""
MIDDLE = (0.025, 0.5, 0.975)
FEWEST = 20
"""Images of a class, below which the band of all classes together stands for its own: the middle 95 % of fewer is all
of them."""
BLOCK = 1024
PARTS = ("low", "median", "high", "counts")


@dataclass(frozen=True, eq=False)
class NaturalBands:
    """The middle 95 % of the distances of natural images to the class that the network names.

    Attributes:
        low: 2.5 % quantile ``(C, L)``, by that class and layer.
        median: ``(C, L)``.
        high: 97.5 % quantile ``(C, L)``.
        counts: Images of each class, int64 ``(C,)``; where they are fewer than ``FEWEST``, the band is that of all
            classes together.
    """

    low: Tensor
    median: Tensor
    high: Tensor
    counts: Tensor

    def departures(self, distances: Tensor, classes: Tensor) -> Tensor:
        """Standardise distances: 0 at the median, 1 and -1 at the edges of the band.

        Args:
            distances: To the class, by layer, ``(N, L)``.
            classes: int64, ``(N,)``.

        Returns:
            Shape ``(N, L)``, finite; beyond 1 in size exactly where a distance lies outside of the band.
        """
        low, median, high = (part.to(distances)[classes] for part in (self.low, self.median, self.high))
        width = torch.where(distances >= median, high - median, median - low)
        return (distances - median) / width.clamp_min(torch.finfo(distances.dtype).tiny ** 0.5)

    def tensors(self) -> dict[str, Tensor]:
        """Name the tensors, to be stored."""
        return {name: getattr(self, name).contiguous() for name in PARTS}

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor]) -> NaturalBands:
        """Build it from what :meth:`tensors` gave."""
        return cls(**{name: tensors[name] for name in PARTS})


def class_distances(representatives: Representatives) -> ClassDistances:
    """Prepare the distances that bands are made of: features of all layers to ``(N, L, C)``."""
    return ClassDistances(representatives.centroids, DISTANCE, whitening=representatives.whitening)


def natural_bands(clean: Activations, representatives: Representatives) -> NaturalBands:
    """Measure natural images against the class that the network gives them.

    Args:
        clean: Of natural images that the representatives do not come from.
        representatives: Class representatives of the network under attack.

    Returns:
        The bands.

    Raises:
        DataError: There is no image.
    """
    if not len(clean):
        raise DataError("bands: expected at least one natural image, got none; use more images")
    measure, classes = class_distances(representatives), clean.logits.argmax(dim=1)
    own = torch.cat(
        [
            _own(measure(part.of_layers(representatives.layers)), part.logits.argmax(dim=1))
            for part in clean.blocks(BLOCK)
        ]
    ).double()
    quantiles = torch.tensor(MIDDLE, dtype=torch.float64)
    pooled = torch.quantile(own, quantiles, dim=0)
    counts = torch.bincount(classes, minlength=len(representatives.class_names))
    found = [
        torch.quantile(own[classes == label], quantiles, dim=0) if int(count) >= FEWEST else pooled
        for label, count in enumerate(counts)
    ]
    low, median, high = torch.stack(found, dim=1).float()
    return NaturalBands(low, median, high, counts)


def _own(distances: Tensor, classes: Tensor) -> Tensor:
    """Distances ``(N, L)`` of images to one class each."""
    return distances.gather(2, classes[:, None, None].expand(-1, distances.shape[1], 1))[:, :, 0]
