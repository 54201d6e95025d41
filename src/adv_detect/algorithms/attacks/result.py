"""Context of attacks on features, and the result of every attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

import torch
from torch import Tensor

if TYPE_CHECKING:
    from adv_detect.algorithms.representatives import Representatives


@dataclass(frozen=True)
class AttackContext:
    """Class representatives and guides for attacks on features.

    Attributes:
        representatives: Class representatives of every layer; ``medoids[l]`` has shape ``(C, D_l)``.
        layers: Names of the layers read, in network order; the last one holds the features that
            identify a face.
        guides: Image ``(channels, H, W)`` by class, which an attack approaches in place of the representative.
    """

    representatives: Representatives
    layers: tuple[str, ...]
    guides: Mapping[int, Tensor] = field(default_factory=dict)


class Searched(Protocol):
    """State of a search, one row per image that it is at.

    Attributes:
        row: Positions of the images in the whole, int64 ``(n,)``.
        best: The nearest successes so far, as images or flat.
        best_norm: Their distances to the source ``(n,)``, infinite where there is none.
        best_class: Their classes, int64 ``(n,)``.
        evaluations: Forward and backward passes spent, int64 ``(n,)``.
        broken: Whether something became NaN or infinite, bool ``(n,)``.
    """

    row: Tensor
    best: Tensor
    best_norm: Tensor
    best_class: Tensor
    evaluations: Tensor
    broken: Tensor


@dataclass(frozen=True)
class AttackResult:
    """The images of an attack on N source images, successes and failures alike.

    Attributes:
        images: Attacked images ``(N, channels, H, W)``, float32, in the network's pixel range.
        success: Whether the attack's own judge is fooled, bool ``(N,)``.
        adversarial_class: Class that the attack's own judge gives the result, int64 ``(N,)``.
        gradient_evaluations: Forward and backward passes spent on each image, int64 ``(N,)``.
        non_finite: Failures because a gradient, a logit or a pixel became NaN or infinite, bool ``(N,)``; these
            give back the source image. None of them where it is not given.
    """

    images: Tensor
    success: Tensor
    adversarial_class: Tensor
    gradient_evaluations: Tensor
    non_finite: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))

    @classmethod
    def of_failures(cls, images: Tensor, classes: Tensor) -> Self:
        """Begin with a failure for each image: its source ``(N, channels, H, W)``, class 0, nothing spent.

        Args:
            images: The sources.
            classes: Any classes, int64 ``(N,)``.
        """
        return cls(
            images=images.clone(),
            success=torch.zeros_like(classes, dtype=torch.bool),
            adversarial_class=torch.zeros_like(classes),
            gradient_evaluations=torch.zeros_like(classes),
        )

    def __post_init__(self) -> None:
        """Fill in that nothing was out of order."""
        if len(self.non_finite) != len(self.images):
            object.__setattr__(self, "non_finite", torch.zeros_like(self.success, dtype=torch.bool))

    def store(self, found: Searched) -> None:
        """Take over what a search found, in the rows of its images."""
        success = found.best_norm.isfinite()
        self.images[found.row] = found.best.view(-1, *self.images.shape[1:])
        self.success[found.row] = success
        self.adversarial_class[found.row] = found.best_class
        self.gradient_evaluations[found.row] = found.evaluations
        self.non_finite[found.row] = found.broken & ~success
