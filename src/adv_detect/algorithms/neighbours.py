"""Exact search for nearest neighbours, in blocks: memory is bounded however many references there are."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from adv_detect.errors import ConfigurationError, DataError

BLOCK_ELEMENTS = 2**23
"""Numbers that a block of distances, or of differences, holds at most."""
QUERIES = 1024
"""Queries that are compared with a block of references at once."""
SPARE = 8
"""Candidates beyond k: they are found in float32 and ordered by exact distances."""
FAISS_FROM = 50_000
"""References from which on faiss, where it is installed, is worth its start-up time."""


def nearest(queries: Tensor, references: Tensor, k: int, *, elements: int = BLOCK_ELEMENTS) -> tuple[Tensor, Tensor]:
    """Find the nearest references of each query, by Euclidean distance.

    Candidates come from matrix products; their distances are computed again as differences, so that near ones are
    exact and gradients flow to the queries. The choice of neighbours passes no gradient.

    Args:
        queries: Shape ``(N, D)``.
        references: Shape ``(M, D)``, on the same device.
        k: Number of neighbours, at most M.
        elements: Numbers in a block; bounds the memory.

    Returns:
        Distances ``(N, k)``, ascending, and int64 rows of the references ``(N, k)``; of equally distant ones the
        earlier row comes first.

    Raises:
        ConfigurationError: k is not between 1 and M.
        DataError: Widths differ.
    """
    if queries.dim() != 2 or references.dim() != 2 or queries.shape[1] != references.shape[1]:
        raise DataError(
            f"neighbours: expected references of shape (M, {queries.shape[-1]}) like the queries, got "
            f"{tuple(references.shape)}"
        )
    if not 1 <= k <= len(references):
        raise ConfigurationError(f"k: expected 1 to {len(references)}, the number of references, got {k}")
    wanted = min(k + SPARE, len(references))
    rows = max(1, elements // (wanted * max(queries.shape[1], 1)))
    with torch.no_grad():
        candidates = _candidates(queries.detach(), references, wanted, elements)
    parts = [
        _ordered(block, references, found, k)
        for block, found in zip(torch.split(queries, rows), torch.split(candidates, rows), strict=True)
    ]
    return torch.cat([far for far, _ in parts]), torch.cat([which for _, which in parts])


def safe_norm(differences: Tensor) -> Tensor:
    """Compute Euclidean norms over the last axis; at zero the gradient is zero."""
    squares = differences.square().sum(dim=-1)
    apart = squares.detach() > 0
    return torch.where(apart, squares, 1.0).sqrt() * apart


def _ordered(queries: Tensor, references: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Order candidates ``(N, K)`` by row, then by exact distance, and keep k of them."""
    candidates = candidates.sort(dim=1).values
    far = safe_norm(queries[:, None, :] - references[candidates].to(queries.dtype))
    order = far.detach().argsort(dim=1, stable=True)[:, :k]
    return far.gather(1, order), candidates.gather(1, order)


def _candidates(queries: Tensor, references: Tensor, k: int, elements: int) -> Tensor:
    if len(references) >= FAISS_FROM and not references.is_cuda and find_spec("faiss") is not None:
        return _by_faiss(queries, references, k, elements)
    return _by_products(queries, references, k, elements)


def _by_products(queries: Tensor, references: Tensor, k: int, elements: int) -> Tensor:
    """Search block by block of the references, keeping the k best so far; centred, so that float32 suffices."""
    centre = references.mean(dim=0)
    rows = max(1, min(len(queries), QUERIES, elements // k))
    columns = max(k, min(len(references), elements // max(rows, references.shape[1])))
    return torch.cat([_search(part - centre, references, centre, k, columns) for part in torch.split(queries, rows)])


def _search(queries: Tensor, references: Tensor, centre: Tensor, k: int, columns: int) -> Tensor:
    best = queries.new_full((len(queries), 0), float("inf"))
    rows = torch.zeros(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(references), columns):
        block = (references[start : start + columns] - centre).to(queries.dtype)
        squares = torch.addmm(block.square().sum(dim=1)[None], queries, block.T, alpha=-2)
        found = squares.topk(min(k, len(block)), dim=1, largest=False)
        best, rows = torch.cat([best, found.values], dim=1), torch.cat([rows, found.indices + start], dim=1)
        if best.shape[1] > k:
            kept = best.topk(k, dim=1, largest=False)
            best, rows = kept.values, rows.gather(1, kept.indices)
    return rows


def _by_faiss(queries: Tensor, references: Tensor, k: int, elements: int) -> Tensor:
    """Search with faiss, which blocks both sides itself; references enter in blocks, centred."""
    import faiss

    centre = references.mean(dim=0)
    index = faiss.IndexFlatL2(references.shape[1])
    for block in torch.split(references, max(1, elements // references.shape[1])):
        index.add((block - centre).float().contiguous().numpy())
    found: Any = index.search((queries - centre).float().contiguous().numpy(), k)[1]
    return torch.from_numpy(found)
