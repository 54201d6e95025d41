"""Kernel density of the last layer under the images of the predicted class."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector, FitData, FitHistory, LearnsFrom
from adv_detect.algorithms.detectors.published.references import balanced_rows, held_out
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError, DataError

PUBLISHED_BANDWIDTHS = {"mnist": 1.20, "cifar10": 0.26, "svhn": 1.00}
"""Published, for the networks there; features of other networks are of other size."""
BANDWIDTHS = 25
"""Tried from a hundredth of the typical distance between images to ten times it, evenly in the logarithm."""
HELD_OUT = 0.2
"""Share of images by which :meth:`KDEDetector.fit` chooses."""
BLOCK_ELEMENTS = 2**23
"""Distances computed at once."""


class KDEDetector(Detector):
    """Minus the logarithm of the density of Gaussian kernels on the clean images of the predicted class.

    Source: Feinman et al., "Detecting adversarial samples from artifacts", 2017 (arXiv 1703.00410), section 4.1. The
    paper joins it with the uncertainty under dropout by a regression that learns from attacks; activations hold one
    pass of the network, so the density stands alone and needs no attack. An image predicted as a class of which no
    clean image was kept is measured against all. The normalisation, equal for all images, is left out.

    Attributes:
        layer: Name of the last layer.
        most: Clean images kept.
        chosen: The configured bandwidth; None chooses it by the likelihood of held-out clean images.
    """

    learns_from = LearnsFrom.CLEAN
    references: Tensor
    classes: Tensor
    bandwidth: Tensor

    def __init__(
        self,
        representatives: Representatives,
        bandwidth: float | None = None,
        references: int = 10_000,
        dropout: bool = False,
    ) -> None:
        """Make room for the images kept.

        Args:
            representatives: Class representatives of the network under attack.
            bandwidth: Standard deviation of the kernels; None chooses it.
            references: Clean images kept at most, balanced over the classes.
            dropout: Whether to add the uncertainty under dropout; only False is possible.

        Raises:
            ConfigurationError: An argument is out of range, or dropout is asked for.
        """
        super().__init__()
        if dropout:
            raise ConfigurationError(
                "dropout: expected false, got true; uncertainty takes many passes through a network with dropout, and "
                "activations hold one without it"
            )
        if (bandwidth is not None and bandwidth <= 0) or references < 2:
            raise ConfigurationError(
                f"expected bandwidth above 0 or null and at least 2 references, got {bandwidth} and {references}"
            )
        self.layer, self.most, self.chosen = representatives.layers[-1], references, bandwidth
        self.clean_needed = 2
        self.register_buffer("references", torch.zeros(0, representatives.centroids[-1].shape[1]))
        self.register_buffer("classes", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("bandwidth", torch.tensor(bandwidth or 1.0, dtype=torch.float64))

    def forward(self, activations: Activations) -> Tensor:
        """Score images: minus the log density, ``(N,)``."""
        (features,) = activations.of_layers([self.layer])
        return -self.log_density(features, activations.logits.argmax(dim=1))

    def log_density(self, features: Tensor, predicted: Tensor) -> Tensor:
        """Give the log mean of the kernels of the predicted class, ``(N,)``."""
        rows = max(1, BLOCK_ELEMENTS // max(len(self.references), 1))
        parts = zip(torch.split(features, rows), torch.split(predicted, rows), strict=True)
        return torch.cat([self._block(*part) for part in parts])

    def fit(self, clean: Activations, attacked: Activations | None, *, seed: int) -> FitHistory:
        """Keep clean images; every fifth is left out where a bandwidth is to be chosen."""
        if self.chosen is not None or len(clean) < 2:
            return self._keep(clean, None, seed)
        kept, rest = held_out(len(clean), HELD_OUT, seed=seed)
        return self._keep(clean.select(kept), clean.select(rest), seed)

    def fit_chosen(self, data: FitData, *, seed: int) -> FitHistory:
        """Keep clean images, and choose the bandwidth by those of the validation split."""
        return self._keep(data.clean, data.validation_clean, seed)

    def _keep(self, clean: Activations, held: Activations | None, seed: int) -> FitHistory:
        if len(clean) < self.clean_needed:
            raise DataError(f"kde: expected at least 2 clean images, got {len(clean)}; use more images")
        predicted = clean.logits.argmax(dim=1)
        kept = balanced_rows(predicted, self.most, seed=seed)
        (features,) = clean.of_layers([self.layer])
        self.references, self.classes = features[kept].detach().clone(), predicted[kept].clone()
        if self.chosen is not None or held is None:
            return []
        return self._choose(held)

    def _choose(self, held: Activations) -> FitHistory:
        """Take the bandwidth under which held-out clean images are likeliest."""
        (features,) = held.of_layers([self.layer])
        predicted = held.logits.argmax(dim=1)
        width = features.shape[1]
        typical = float(self.references.double().var(dim=0).sum().mul(2).sqrt()) or 1.0
        history = []
        for exponent in torch.linspace(-2, 1, BANDWIDTHS).tolist():
            self.bandwidth.fill_(typical * 10**exponent)
            spread = width * math.log(float(self.bandwidth) * math.sqrt(2 * math.pi))
            likelihood = float(self.log_density(features, predicted).double().mean()) - spread
            history.append({"bandwidth": float(self.bandwidth), "log_likelihood": likelihood})
        self.bandwidth.fill_(max(history, key=lambda one: one["log_likelihood"])["bandwidth"])
        return history

    def _block(self, features: Tensor, predicted: Tensor) -> Tensor:
        squares = squared_distances(features, self.references)
        member = predicted[:, None] == self.classes
        member |= ~member.any(dim=1, keepdim=True)
        kernels = (-squares / (2 * self.bandwidth.square())).masked_fill(~member, -torch.inf)
        return (kernels.logsumexp(dim=1) - member.sum(dim=1).log()).to(features.dtype)


def squared_distances(points: Tensor, references: Tensor) -> Tensor:
    """Compute squared Euclidean distances ``(N, M)`` in float64, by products on centred points."""
    centre = references.double().mean(dim=0)
    left, right = points.double() - centre, references.double() - centre
    squares = left.square().sum(dim=1, keepdim=True) + right.square().sum(dim=1) - 2 * (left @ right.T)
    return functional.relu(squares)
