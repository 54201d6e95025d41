"""Scores of any number of inputs, block by block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from adv_detect.algorithms.device import device_of

SCORE_BLOCK = 2048
"""Images scored at once by default."""


class Movable(Protocol):
    """Tensors, or activations."""

    def to(self, device: torch.device) -> Self:
        """Give the same on a device."""


def score_in_blocks(module: nn.Module, blocks: Iterable[Movable]) -> Tensor:
    """Score blocks one by one in evaluation mode, without gradients; the training mode is restored afterwards.

    Args:
        module: Gives a score per row of a block.
        blocks: What it takes, on any device: each moves to that of the module.

    Returns:
        Scores ``(N,)`` on the CPU.
    """
    place, was_training = device_of(module), module.training
    module.eval()
    try:
        with torch.no_grad():
            scores = [module(block.to(place)).cpu() for block in blocks]
    finally:
        module.train(was_training)
    return torch.cat(scores) if scores else torch.zeros(0)
