"""Nearest neighbours of points among references, in blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from adv_detect.errors import DataError


def nearest(queries: Tensor, references: Tensor, k: int, block: int = 4096) -> tuple[Tensor, Tensor]:
    """Find the k nearest references of each query by Euclidean distance.

    Args:
        queries: Shape ``(N, D)``.
        references: Shape ``(M, D)``, on the same device.
        k: How many, 1 to M.
        block: Queries, and references, that are compared at once; bounds the memory.

    Returns:
        Distances, ascending, and indices of the references, each ``(N, k)``; without gradient.

    Raises:
        DataError: There are fewer references than ``k``, or widths differ.
    """
    if queries.dim() != 2 or references.dim() != 2 or queries.shape[1] != references.shape[1]:
        raise DataError(
            f"expected queries (N, D) and references (M, D) of one width, got {tuple(queries.shape)} and "
            f"{tuple(references.shape)}"
        )
    if not 1 <= k <= len(references):
        raise DataError(f"expected 1 to {len(references)} neighbours, as there are references, got {k}")
    with torch.no_grad():
        parts = [_nearest(part, references, k, block) for part in torch.split(queries.detach(), block)]
    return torch.cat([one[0] for one in parts]), torch.cat([one[1] for one in parts])


def _nearest(queries: Tensor, references: Tensor, k: int, block: int) -> tuple[Tensor, Tensor]:
    """Search one block of queries; the best so far compete with each block of references."""
    distances = queries.new_zeros(len(queries), 0)
    indices = torch.zeros(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(references), block):
        part = references[start : start + block]
        found = torch.cdist(queries, part, compute_mode="donot_use_mm_for_euclid_dist")
        numbers = torch.arange(start, start + len(part), device=queries.device).expand(len(queries), -1)
        distances, indices = torch.cat([distances, found], dim=1), torch.cat([indices, numbers], dim=1)
        distances, kept = distances.topk(min(k, distances.shape[1]), dim=1, largest=False, sorted=True)
        indices = indices.gather(1, kept)
    return distances, indices
