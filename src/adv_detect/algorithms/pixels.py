"""Pixel values: the levels that a file holds, and the range."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS_8BIT = 256


def quantise(images: Tensor, bounds: tuple[float, float], levels: int = LEVELS_8BIT) -> Tensor:
    """Round images to evenly spaced pixel values, as saving them in a file would.

    Args:
        images: Images of any shape, within ``bounds``.
        bounds: Lowest and highest pixel value, both kept exactly.
        levels: Number of values, 256 for eight bits.

    Returns:
        Rounded images.
    """
    if levels < 2:
        raise ValueError(f"levels: expected at least 2, got {levels}")
    low, high = bounds
    steps = ((images - low) / (high - low) * (levels - 1)).round()
    return (low + steps / (levels - 1) * (high - low)).clamp(low, high)


def clip(images: Tensor, low: float, high: float) -> Tensor:
    """Clip pixels, with the gradient of a pixel left alone also where it lies on a bound, as black and white ones do.

    ``Tensor.clamp`` has no gradient there, so an attack would not see that a black pixel may become brighter.

    Args:
        images: Any shape.
        low: Lowest value.
        high: Highest value.

    Returns:
        Pixels within ``[low, high]``.
    """
    above = torch.where(images < low, low, images)
    return torch.where(above > high, high, above)
