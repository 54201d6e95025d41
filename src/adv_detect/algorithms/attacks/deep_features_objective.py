"""Objectives of the deep-features attack, its box constraint and its judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from adv_detect.errors import AttackError, ConfigurationError
from adv_detect.images import UINT8_MAX

FeatureFunction = Callable[[Tensor], Tensor]
"""Images ``(N, channels, H, W)`` to features ``(N, D)``, differentiable."""

Direction = Literal["approach", "leave"]
PIXEL_LEVELS = UINT8_MAX
"""The unit of ``max_thres``: one step of an 8-bit image."""


@dataclass(frozen=True)
class Box:
    """Bounds of each pixel: near its source and within the pixel range.

    Attributes:
        lower: Smallest value, ``(N, channels, H, W)``.
        upper: Largest value, same shape.
        radius: Largest change of a pixel, in the network's pixel range.
    """

    lower: Tensor
    upper: Tensor
    radius: float

    def select(self, rows: Tensor) -> Box:
        """Return the box of some images, ``rows`` int64 or bool."""
        return Box(self.lower[rows], self.upper[rows], self.radius)

    def project(self, images: Tensor) -> Tensor:
        """Return the nearest images inside the box, ``(N, channels, H, W)``."""
        return torch.minimum(torch.maximum(images, self.lower), self.upper)


@dataclass(frozen=True)
class Evaluation:
    """One forward and backward pass.

    Attributes:
        loss: ``(n,)``.
        gradient: Gradient of each image's own loss, ``(n, channels, H, W)``.
        features: ``(n, D)``, detached.
    """

    loss: Tensor
    gradient: Tensor
    features: Tensor


@dataclass(frozen=True)
class FeatureObjective:
    """Half the squared distance to a reference vector, or minus the distance to it.

    Attributes:
        features: Gives the features of images.
        references: One vector per attacked image, ``(N, D)``: the guide to approach, or the own identity to leave.
        direction: ``approach`` minimises the distance, ``leave`` maximises it.
    """

    features: FeatureFunction
    references: Tensor
    direction: Direction = "approach"

    def evaluate(self, images: Tensor, rows: Tensor) -> Evaluation:
        """Compute loss and gradient of images.

        Args:
            images: ``(n, channels, H, W)``.
            rows: Position of each image in ``references``, int64 ``(n,)``.

        Raises:
            AttackError: No gradient reaches the images.
        """
        with torch.enable_grad():
            leaf = images.detach().requires_grad_(True)
            features = self.features(leaf)
            loss = self.loss(features, rows)
            if not features.requires_grad:
                raise AttackError("the features do not depend differentiably on the images; choose another last layer")
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        return Evaluation(loss.detach(), gradient, features.detach())

    def loss(self, features: Tensor, rows: Tensor) -> Tensor:
        """Compute the loss ``(n,)`` of features ``(n, D)`` at ``rows``."""
        difference = features - self.references[rows]
        if self.direction == "approach":
            return difference.square().sum(dim=1) / 2
        away: Tensor = torch.linalg.vector_norm(difference, dim=1)
        return -away


class Judge(Protocol):
    """Decides from features alone whether an attack has won."""

    def fooled(self, features: Tensor, rows: Tensor) -> Tensor:
        """Return bool ``(n,)`` for features ``(n, D)`` of the attacked images ``rows``."""
        ...


@dataclass(frozen=True)
class NearestRepresentativeJudge:
    """k-nearest neighbours with k = 1 on one representative per class, Euclidean.

    Attributes:
        representatives: ``(C, D)``.
        labels: Own class of each attacked image, int64 ``(N,)``.
        targets: Class aimed at, int64 ``(N,)``; None where any other class will do.
    """

    representatives: Tensor
    labels: Tensor
    targets: Tensor | None = None

    def classes(self, features: Tensor) -> Tensor:
        """Return the class of the nearest representative, int64 ``(n,)``; ties: the first."""
        return nearest_classes(features, self.representatives)

    def fooled(self, features: Tensor, rows: Tensor) -> Tensor:
        """Return whether the class is the target, or for an untargeted attack not the own one, bool ``(n,)``."""
        classes = self.classes(features)
        return classes != self.labels[rows] if self.targets is None else classes == self.targets[rows]


@dataclass(frozen=True)
class SimilarityJudge:
    """Verification: two faces are the same person when their cosine similarity reaches a threshold.

    Attributes:
        others: Features of the other image of each pair, ``(N, D)``.
        threshold: Cosine similarity from which a pair is accepted.
        accept: True when the attacker wants the pair accepted (impersonation), False for rejected (dodging).
    """

    others: Tensor
    threshold: float
    accept: bool = True

    def fooled(self, features: Tensor, rows: Tensor) -> Tensor:
        """Return whether the decision is the attacker's, bool ``(n,)``."""
        accepted = functional.cosine_similarity(features, self.others[rows], dim=1) >= self.threshold
        return accepted if self.accept else ~accepted


def make_box(images: Tensor, *, max_thres: float, bounds: tuple[float, float]) -> Box:
    """Bound the change of each pixel.

    Args:
        images: Source images within ``bounds``, ``(N, channels, H, W)``.
        max_thres: Largest change of a pixel in 0..255 units.
        bounds: Lowest and highest pixel value.

    Returns:
        The box; ``max_thres`` 255 is the whole width of ``bounds``.

    Raises:
        ConfigurationError: A pixel lies outside ``bounds`` or is not a number.
    """
    low, high = bounds
    if not bool(((images >= low) & (images <= high)).all()):
        raise ConfigurationError(f"images: expected pixels within bounds {list(bounds)}; rescale them")
    radius = pixel_radius(max_thres, bounds)
    return Box((images - radius).clamp(min=low), (images + radius).clamp(max=high), radius)


def pixel_radius(max_thres: float, bounds: tuple[float, float]) -> float:
    """Convert a largest change of a pixel from 0..255 units into the pixel range ``bounds``."""
    return max_thres / PIXEL_LEVELS * (bounds[1] - bounds[0])


def nearest_classes(features: Tensor, representatives: Tensor) -> Tensor:
    """Name features ``(n, D)`` by the nearest of representatives ``(C, D)``: int64 ``(n,)``; ties: the first."""
    return distances(features, representatives).argmin(dim=1)


def distances(features: Tensor, representatives: Tensor) -> Tensor:
    """Compute exact Euclidean distances ``(n, C)`` of features ``(n, D)`` to representatives ``(C, D)``."""
    return torch.cdist(features, representatives, compute_mode="donot_use_mm_for_euclid_dist")
