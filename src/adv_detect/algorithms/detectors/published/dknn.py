"""Deep k nearest neighbours: agreement of the neighbours' labels over all layers, as a conformal credibility."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector, FitHistory, LearnsFrom
from adv_detect.algorithms.detectors.published.references import balanced_rows, held_out
from adv_detect.algorithms.neighbours import nearest
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError, DataError

NEIGHBOURS = 75
"""Published for all data sets."""
CALIBRATION = 750
"""Published: images held out to calibrate by."""
CALIBRATION_SHARE = 0.2
"""Of the clean images, where that is fewer than the published number."""
REFERENCES = 20_000


class DkNNDetector(Detector):
    """Minus the credibility: the share of held-out clean images that conform no better than this image does.

    Source: Papernot and McDaniel, "Deep k-nearest neighbors: towards confident, interpretable and robust deep
    learning", 2018 (arXiv 1803.04765), section 4, algorithm 1. An image's nonconformity with a class is the number,
    over all layers, of its k neighbours with another label; its credibility is the p-value of the least nonconformity
    of any class. Features are centred and scaled to length one, as there; search is exact where it hashes. Labels are
    those that the network gives to the clean images, which it classifies correctly. The published k is for thousands
    of images a class: above their number neighbours of other labels are counted for every image.

    Many images share a credibility, above all 0. Among them the nonconformity decides, then the mean distance to the
    farthest of the k neighbours; both together move a score by less than half the step between two p-values.

    Attributes:
        layers: Names of the layers.
        k: Number of neighbours.
        most: Clean images kept to compare with.
        labels: Of the images kept, int64 ``(M,)``.
        calibration: Nonconformities of held-out clean images with their class, ascending.
    """

    learns_from = LearnsFrom.CLEAN
    differentiable = False
    labels: Tensor
    calibration: Tensor

    def __init__(self, representatives: Representatives, k: int = NEIGHBOURS, references: int = REFERENCES) -> None:
        """Make room for the images kept.

        Args:
            representatives: Class representatives of the network under attack.
            k: Number of neighbours.
            references: Clean images kept at most, balanced over the classes.

        Raises:
            ConfigurationError: k is below 1 or above ``references``.
        """
        super().__init__()
        if not 1 <= k <= references:
            raise ConfigurationError(f"k: expected 1 to {references}, the references, got {k}")
        self.layers, self.k, self.most = representatives.layers, k, references
        self.classes = len(representatives.class_names)
        self.clean_needed = k + max(1, round(k * CALIBRATION_SHARE / (1 - CALIBRATION_SHARE)))
        for number, points in enumerate(representatives.centroids):
            self.register_buffer(f"references_{number}", torch.zeros(0, points.shape[1]))
            self.register_buffer(f"centre_{number}", torch.zeros(points.shape[1]))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("calibration", torch.zeros(0, dtype=torch.int64))

    def forward(self, activations: Activations) -> Tensor:
        """Score images: minus the credibility, ``(N,)``, in [-1, 1 / n)."""
        with torch.no_grad():
            nonconformity, far = self._neighbours(activations)
            least = nonconformity.amin(dim=1)
            scores = self._breaking_ties(least, far) - self.credibility(least).double()
        return scores.to(activations.logits.dtype)

    def credibility(self, nonconformity: Tensor) -> Tensor:
        """Give the share of calibration images whose nonconformity is at least as large, ``(N,)``."""
        smaller = torch.searchsorted(self.calibration, nonconformity.contiguous())
        return 1 - smaller / len(self.calibration)

    def fit(self, clean: Activations, attacked: Activations | None, *, seed: int) -> FitHistory:
        """Keep clean images to compare with and calibrate by others."""
        if len(clean) < self.clean_needed:
            raise DataError(
                f"dknn: expected at least {self.clean_needed} clean images for {self.k} neighbours and to "
                f"calibrate by, got {len(clean)}; use more images or a smaller k"
            )
        rest, held = held_out(len(clean), min(CALIBRATION / len(clean), CALIBRATION_SHARE), seed=seed)
        predicted = clean.logits.argmax(dim=1)
        kept = rest[balanced_rows(predicted[rest], self.most, seed=seed)]
        self.labels = predicted[kept].clone()
        for number, part in enumerate(clean.select(kept).of_layers(self.layers)):
            setattr(self, f"centre_{number}", part.detach().mean(dim=0))
            setattr(self, f"references_{number}", self._prepared(number, part.detach()))
        nonconformity, _ = self._neighbours(clean.select(held))
        self.calibration = nonconformity.gather(1, predicted[held][:, None])[:, 0].sort().values
        return []

    def _neighbours(self, activations: Activations) -> tuple[Tensor, Tensor]:
        """Count neighbours of other labels ``(N, C)`` over the layers; mean distance to the farthest ones ``(N,)``."""
        agreeing = torch.zeros(len(activations), self.classes, dtype=torch.int64, device=self.labels.device)
        far = torch.zeros(len(activations), dtype=torch.float64, device=self.labels.device)
        for number, part in enumerate(activations.of_layers(self.layers)):
            prepared = self._prepared(number, part)
            distances, rows = nearest(prepared, self.get_buffer(f"references_{number}"), self.k)
            agreeing.scatter_add_(1, self.labels[rows], torch.ones_like(rows))
            far += distances[:, -1].double()
        return self.k * len(self.layers) - agreeing, far / len(self.layers)

    def _prepared(self, number: int, features: Tensor) -> Tensor:
        """Centre features and scale them to length one."""
        return functional.normalize(features - self.get_buffer(f"centre_{number}"), dim=1)

    def _breaking_ties(self, nonconformity: Tensor, far: Tensor) -> Tensor:
        """Give what orders images of one credibility: distances between unit vectors are at most 2."""
        step = 1 / (2 * len(self.calibration))
        return step * (nonconformity + far / 2.001) / (self.k * len(self.layers) + 1)
