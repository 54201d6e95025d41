"""Mahalanobis distances of all layers to the nearest class, joined by logistic regression."""

from __future__ import annotations

from torch import Tensor

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector, FitHistory, LearnsFrom
from adv_detect.algorithms.detectors.published.logistic import LogisticReadout
from adv_detect.algorithms.distances import ClassDistances
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError, DataError


class MahalanobisDetector(Detector):
    """Squared Mahalanobis distance to the nearest class mean at every layer, weighted by logistic regression.

    Source: Lee et al., "A simple unified framework for detecting out-of-distribution samples and adversarial attacks",
    NeurIPS 2018 (arXiv 1807.03888), equation 2 and algorithm 1. Departures: the covariance, tied over the classes, is
    the shrunk one of the class representatives; the noise added to the input (its magnitude is 0 here) takes the
    network, which a detector of activations has not; the negatives are natural images without noisy ones.

    Attributes:
        layers: Names of the layers.
        distances: Features to ``(N, L, C)``; follows from the representatives.
        readout: Log-odds of the L squared distances.
    """

    learns_from = LearnsFrom.ATTACKS

    def __init__(self, representatives: Representatives, input_noise: float = 0.0) -> None:
        """Prepare the distances.

        Args:
            representatives: Class representatives of the network under attack.
            input_noise: The paper's magnitude of the noise added to the input; only 0 is possible.

        Raises:
            ConfigurationError: Another magnitude.
        """
        super().__init__()
        if input_noise != 0:
            raise ConfigurationError(
                f"input_noise: expected 0, got {input_noise}; the noise follows the gradient to the image, and "
                "detectors read stored activations"
            )
        self.layers = representatives.layers
        self.distances = ClassDistances(representatives.centroids, "mahalanobis", whitening=representatives.whitening)
        self.readout = LogisticReadout(len(self.layers))

    def forward(self, activations: Activations) -> Tensor:
        """Score images: log-odds ``(N,)``."""
        scores: Tensor = self.readout(self.figures(activations))
        return scores

    def figures(self, activations: Activations) -> Tensor:
        """Give the squared distance to the nearest class at each layer, ``(N, L)``: minus the paper's confidence."""
        measured: Tensor = self.distances(activations.of_layers(self.layers))
        return measured.amin(dim=2).square()

    def fit(self, clean: Activations, attacked: Activations | None, *, seed: int) -> FitHistory:
        """Learn the weights of the layers."""
        if attacked is None:
            raise DataError("a mahalanobis detector learns from attacks, got none; give attacked images")
        self.readout.fit(self.figures(clean), self.figures(attacked), seed=seed)
        return []
