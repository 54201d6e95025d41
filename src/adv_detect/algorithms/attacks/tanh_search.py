"""Parts of the Carlini-Wagner attacks: pixels as tanh of free points, and bisection of the constant.

Source: Carlini and Wagner, "Towards evaluating the robustness of neural networks", IEEE S&P 2017, sections V and VI.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from adv_detect.algorithms.attacks.adam import Rows

CONSTANT_GROWTH = 10.0
LARGEST_CONSTANT = 1e10
CONSTANT_PRECISION = 0.5
INFINITY = float("inf")


@dataclass(frozen=True)
class TanhSpace:
    """Points without bounds whose tanh, scaled, are the pixels.

    Attributes:
        low: Lowest pixel value.
        high: Highest pixel value.
        limit: Factor below 1 that moves pixels at a bound inwards, as tanh never reaches 1.
    """

    low: float
    high: float
    limit: float

    @property
    def centre(self) -> float:
        """Pixel value of the point 0."""
        return (self.low + self.high) / 2

    @property
    def half(self) -> float:
        """Half the pixel range."""
        return (self.high - self.low) / 2

    def points(self, images: Tensor) -> Tensor:
        """Return the points of images within the bounds, same shape."""
        return (((images - self.centre) / self.half).clamp(-1.0, 1.0) * self.limit).atanh()

    def pixels(self, tanh: Tensor) -> Tensor:
        """Return the images whose points have this ``tanh``, same shape."""
        return (tanh * self.half + self.centre).clamp(self.low, self.high)

    def slope(self, tanh: Tensor) -> Tensor:
        """Return the derivative of pixels with respect to their points, same shape."""
        return (1 - tanh.square()) * self.half


@dataclass
class ConstantBisection(Rows):
    """Search per image for the smallest constant that succeeds.

    Attributes:
        constant: Tried now, ``(n,)``.
        lower: Largest that failed, 0 before, ``(n,)``.
        upper: Smallest that succeeded, infinite before, ``(n,)``.
    """

    constant: Tensor
    lower: Tensor
    upper: Tensor

    @classmethod
    def start(cls, images: Tensor, initial: float) -> Self:
        """Begin at the constant ``initial`` for images ``(n, ...)``."""
        nothing = images.new_zeros(len(images))
        return cls(torch.full_like(nothing, initial), nothing, torch.full_like(nothing, INFINITY))

    def narrow(self, success: Tensor, *, ended: Tensor | None = None, last: Tensor | None = None) -> None:
        """Set the next constants: the middle of the interval, or ten times the constant until one succeeds.

        Args:
            success: Whether the constant succeeded, bool ``(n,)``.
            ended: Rows whose trial has ended, bool ``(n,)``; the others keep their constant. All when None.
            last: Rows that have one trial left, bool ``(n,)``; without a success they get the largest constant.
        """
        ended = torch.ones_like(success) if ended is None else ended
        self.upper = torch.where(ended & success, self.constant, self.upper)
        self.lower = torch.where(ended & ~success, self.constant, self.lower)
        larger = (self.constant * CONSTANT_GROWTH).clamp_max(LARGEST_CONSTANT)
        if last is not None:
            larger = torch.where(last, LARGEST_CONSTANT, larger)
        following = torch.where(self.upper.isfinite(), (self.lower + self.upper) / 2, larger)
        self.constant = torch.where(ended, following, self.constant)

    def pinned(self) -> Tensor:
        """Tell where the bounds are within a factor of two, bool ``(n,)``."""
        return self.upper.isfinite() & (self.upper - self.lower <= CONSTANT_PRECISION * self.upper)
