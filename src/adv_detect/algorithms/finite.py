"""Rows of tensors: which are finite, and values per row."""

from __future__ import annotations

import torch
from torch import Tensor


def finite_rows(*tensors: Tensor) -> Tensor:
    """Tell which rows are finite in every tensor.

    Args:
        tensors: Any shapes ``(N, ...)`` of one N, at least one.

    Returns:
        Bool ``(N,)``.
    """
    found = [torch.isfinite(one.detach()) for one in tensors]
    flags = [one if one.ndim == 1 else one.flatten(1).all(dim=1) for one in found]
    return flags[0] if len(flags) == 1 else torch.stack(flags).all(dim=0)


def replace_rows(values: Tensor, others: Tensor, flags: Tensor) -> Tensor:
    """Take rows from another tensor.

    Args:
        values: Shape ``(N, ...)``.
        others: Same shape.
        flags: Which rows come from ``others``, bool ``(N,)``.

    Returns:
        Shape ``(N, ...)``.
    """
    return torch.where(per_row(flags, values), others, values)


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """Shape one value per row, ``(N,)``, so that it broadcasts over ``like``, ``(N, ...)``."""
    return values.view(-1, *[1] * (like.ndim - 1))
