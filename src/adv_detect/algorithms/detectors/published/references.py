"""Images to compare with: a seeded choice of clean ones, the same number of every class where there are enough."""

from __future__ import annotations

import torch
from torch import Tensor


def balanced_rows(classes: Tensor, most: int, *, seed: int) -> Tensor:
    """Choose rows at random, in turn from each class.

    Args:
        classes: Class of each row, int64 ``(N,)``.
        most: Rows to choose.
        seed: Decides the choice; the global random state stays as it is.

    Returns:
        At most ``most`` rows, ascending, int64; all where there are no more.
    """
    if len(classes) <= most:
        return torch.arange(len(classes))
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(classes), generator=generator)
    turn = torch.empty_like(shuffled)
    for one in torch.unique(classes):
        members = shuffled[classes[shuffled] == one]
        turn[members] = torch.arange(len(members))
    return shuffled[turn[shuffled].argsort(stable=True)[:most]].sort().values


def held_out(count: int, share: float, *, seed: int) -> tuple[Tensor, Tensor]:
    """Divide rows at random.

    Args:
        count: Number of rows, at least 2.
        share: Of the second part; each part has at least one row.
        seed: Decides the division.

    Returns:
        Rows of both parts, ascending.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held = min(max(1, round(count * share)), count - 1)
    return order[held:].sort().values, order[:held].sort().values
