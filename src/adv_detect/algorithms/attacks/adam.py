"""Adam (Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1) with one row per image."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from adv_detect.algorithms.finite import per_row

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass
class Rows:
    """Base of dataclasses whose fields are tensors ``(n, ...)``, or such dataclasses, with one row per image."""

    def select(self, keep: Tensor) -> Self:
        """Return the kept rows, int64 positions ``(k,)``, as a new object."""
        return type(self)(**{one.name: _select(getattr(self, one.name), keep) for one in fields(self)})


def _select(values: Any, keep: Tensor) -> Any:
    return values.select(keep) if isinstance(values, Rows) else values[keep]


@dataclass
class AdamState(Rows):
    """State of one optimiser per image.

    Attributes:
        mean: First moment of the gradients, ``(n, ...)``.
        variance: Second moment, same shape.
        step: Steps made, float ``(n,)``.
    """

    mean: Tensor
    variance: Tensor
    step: Tensor

    @classmethod
    def at_rest(cls, points: Tensor) -> Self:
        """Begin at points ``(n, ...)``."""
        return cls(torch.zeros_like(points), torch.zeros_like(points), points.new_zeros(len(points)))

    def move(self, gradient: Tensor, rate: float, *, epsilon: float = EPSILON) -> Tensor:
        """Count a gradient in and return the step to subtract from the points, ``(n, ...)``.

        Args:
            gradient: At the current points, ``(n, ...)``.
            rate: Learning rate.
            epsilon: Keeps the division by small moments finite.
        """
        self.step += 1
        self.mean.lerp_(gradient, 1 - BETA1)
        self.variance.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        correction = per_row((1 - BETA2**self.step).sqrt(), gradient)
        size = per_row(rate / (1 - BETA1**self.step), gradient)
        return self.mean / self.variance.sqrt().div_(correction).add_(epsilon) * size

    def restart(self, flags: Tensor) -> None:
        """Forget the past of the rows where ``flags``, bool ``(n,)``, is true."""
        kept = per_row(~flags, self.mean)
        self.mean.mul_(kept)
        self.variance.mul_(kept)
        self.step.mul_(~flags)
