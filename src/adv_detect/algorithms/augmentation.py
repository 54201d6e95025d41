"""Random shifts, crops and mirror images of training images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

MAX_SHIFT = 2
CROP_PADDING = 4


def augment(images: Tensor, how: str) -> Tensor:
    """Vary training images at random; draws come from the global generator.

    Args:
        images: Shape ``(N, channels, H, W)``.
        how: ``none``, ``shift`` (up to 2 pixels each way, edges repeated) or ``crop_flip`` (padded by 4 with zeros
            per batch offset, mirrored half of the time, as usual for CIFAR-10).

    Returns:
        Images of the same shape.
    """
    if how == "none":
        return images
    padding = MAX_SHIFT if how == "shift" else CROP_PADDING
    mode = "replicate" if how == "shift" else "constant"
    padded = functional.pad(images, (padding,) * 4, mode=mode)
    moved = _random_windows(padded, images.shape[-2:], 2 * padding + 1)
    if how == "shift":
        return moved
    mirror = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(mirror, moved.flip(-1), moved)


def _random_windows(padded: Tensor, size: torch.Size, offsets: int) -> Tensor:
    """Cut one window of ``size`` per image at a random offset."""
    height, width = size
    device = padded.device
    top = torch.randint(offsets, (len(padded), 1), device=device) + torch.arange(height, device=device)
    left = torch.randint(offsets, (len(padded), 1), device=device) + torch.arange(width, device=device)
    rows = torch.arange(len(padded), device=device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[rows, top[:, :, None], left[:, None, :]].permute(0, 3, 1, 2).contiguous()
