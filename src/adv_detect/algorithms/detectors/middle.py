"""Activations in the middle of those of clean images, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector, FitHistory, LearnsFrom
from adv_detect.algorithms.distances import ClassDistances
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError

COVERAGE = 0.95
LEAST_WIDTH = 1e-9


class MiddleOfClean(Detector):
    """Tells how far an image lies outside the middle of clean images, in the layer where it lies out most.

    In each layer the whitened distance to the centroid of the class that the network names is compared with those of
    clean images to the centroids of theirs: the middle share of these, by quantiles, is inside. The score is at most 0
    where all layers are inside, and grows linearly beyond, 1 for half the width of the middle. It is no detector to
    use: an attacker who brings it to 0 has an image of which each layer, looked at alone, is as far from the class as
    clean images are. Distances to other classes and how layers go together may still give it away.

    Attributes:
        coverage: Share of clean images in the middle of each layer.
    """

    learns_from = LearnsFrom.CLEAN
    low: Tensor
    high: Tensor

    def __init__(self, representatives: Representatives, *, coverage: float = COVERAGE) -> None:
        """Prepare the distances.

        Args:
            representatives: Class representatives of the network under attack.
            coverage: Share of clean images in the middle, above 0 and below 1.

        Raises:
            ConfigurationError: The share is another number.
        """
        super().__init__()
        if not 0 < coverage < 1:
            raise ConfigurationError(f"coverage: expected a share above 0 and below 1, got {coverage:g}")
        self.coverage, self.names = coverage, representatives.layers
        self.distances = ClassDistances(representatives.centroids, "mahalanobis", whitening=representatives.whitening)
        self.register_buffer("low", torch.zeros(len(self.names)))
        self.register_buffer("high", torch.ones(len(self.names)))

    def fit(self, clean: Activations, attacked: Activations | None, *, seed: int) -> FitHistory:
        """Take the quantiles of clean images."""
        measured = self._distances(clean, clean.logits.argmax(dim=1)).to(torch.float64)
        tail = (1 - self.coverage) / 2
        self.low.copy_(measured.quantile(tail, dim=0))
        self.high.copy_(measured.quantile(1 - tail, dim=0))
        return []

    def forward(self, activations: Activations) -> Tensor:
        """Score images under the class that the network names, ``(N,)``."""
        return self._outside(activations, activations.logits.detach().argmax(dim=1)).amax(dim=1)

    def score_as(self, activations: Activations, targets: Tensor, *, scores: Tensor) -> Tensor:
        """Score images as if they were of other classes, ``(N,)``."""
        return self._outside(activations, targets).amax(dim=1)

    def score_parts(self, activations: Activations, targets: Tensor, *, scores: Tensor) -> Tensor:
        """Give the layers apart, ``(N, L)``."""
        return self._outside(activations, targets)

    def _outside(self, activations: Activations, classes: Tensor) -> Tensor:
        half = ((self.high - self.low) / 2).clamp_min(LEAST_WIDTH)
        middle = (self.high + self.low) / 2
        return (self._distances(activations, classes) - middle).abs() / half - 1

    def _distances(self, activations: Activations, classes: Tensor) -> Tensor:
        """Whitened distances to the centroids of these classes ``(N,)``, per layer ``(N, L)``."""
        measured = activations.derived(
            (id(self), "distances"), lambda: self.distances(activations.of_layers(self.names))
        )
        chosen = classes[:, None, None].expand(-1, measured.shape[1], 1)
        return measured.gather(2, chosen).squeeze(2)
