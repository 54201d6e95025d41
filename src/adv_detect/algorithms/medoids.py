"""The exact medoid of a set of vectors, by blocked matrix products."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adv_detect.errors import DataError

TILE = 512
"""Largest side of a block of distances; blocks of this size stay in the processor's cache."""

BYTES_PER_DISTANCE = 32
"""One float64 distance and its temporaries."""

BYTES_PER_MB = 2**20

FLOAT64_EPS = torch.finfo(torch.float64).eps


def medoid_index(features: Tensor, *, memory_budget_mb: int = 256) -> int:
    """Find the member with the least summed Euclidean distance to the others.

    Exact: a matrix product in float64 gives every sum with a proven error bound; members that the bound cannot
    tell from the best are measured again, coordinate difference by coordinate difference.

    Args:
        features: Shape ``(n, D)``, at least one row.
        memory_budget_mb: Upper limit in MiB of the distances held at a time.

    Returns:
        Row of the medoid. Where sums agree within float64 rounding the first such row.

    Raises:
        DataError: There is no row, the shape is not ``(n, D)``, or a value is not finite.
    """
    points = _checked(features)
    count = len(points)
    if count == 1:
        return 0
    budget = max(memory_budget_mb * BYTES_PER_MB // BYTES_PER_DISTANCE, count)
    sums, bounds = _approximate_sums(points, tile=min(TILE, math.isqrt(budget)))
    candidates = torch.nonzero(sums - bounds <= (sums + bounds).min()).flatten()
    if len(candidates) == 1:
        return int(candidates)
    exact = torch.cat([_exact_sums(points, rows) for rows in torch.split(candidates, max(1, budget // count))])
    tie = 1 + FLOAT64_EPS * (count + points.shape[1])
    return int(candidates[torch.nonzero(exact <= exact.min() * tie)[0]])


def _checked(features: Tensor) -> Tensor:
    if features.dim() != 2 or len(features) == 0:
        raise DataError(
            f"features: expected shape (n, D) with at least one row, got {tuple(features.shape)}; "
            "a class needs at least one image"
        )
    if not bool(torch.isfinite(features).all()):
        raise DataError("features: expected finite numbers, got NaN or infinity; check the network and its images")
    return features.detach().to(torch.float64)


def _approximate_sums(points: Tensor, *, tile: int) -> tuple[Tensor, Tensor]:
    """Sum the distances to all rows through ``|a - b|^2 = |a|^2 + |b|^2 - 2 ab``, each block used for both sides.

    Returns:
        Sums ``(n,)`` and how far each may be off ``(n,)``.
    """
    centred = points - points.mean(dim=0)
    squares = centred.square().sum(dim=1)
    sums = torch.zeros_like(squares)
    for start in range(0, len(points), tile):
        rows = slice(start, start + tile)
        for other in range(start, len(points), tile):
            columns = slice(other, other + tile)
            block = torch.addmm(squares[columns], centred[rows], centred[columns].T, alpha=-2)
            block.add_(squares[rows, None]).clamp_min_(0).sqrt_()
            sums[rows] += block.sum(dim=1)
            if other > start:
                sums[columns] += block.sum(dim=0)
    return sums, _error_bounds(points, squares, sums)


def _error_bounds(points: Tensor, squares: Tensor, sums: Tensor) -> Tensor:
    """Bound the rounding error of each sum.

    A squared distance of the expansion is off by at most ``2 (D + 8) eps (|a|^2 + |b|^2)`` (inner products of length
    D), its root by no more than the root of that, and ``sqrt(s + t) <= sqrt(s) + sqrt(t)`` sums it up. Centring moves
    a point by at most ``eps * sqrt(D) * max|x|``, and adding n terms costs ``n eps`` of the sum.
    """
    count, width = points.shape
    norms = squares.sqrt()
    expansion = math.sqrt(2 * (width + 8) * FLOAT64_EPS) * (count * norms + norms.sum())
    centring = 2 * count * FLOAT64_EPS * math.sqrt(width) * points.abs().max()
    return expansion + centring + count * FLOAT64_EPS * sums


def _exact_sums(points: Tensor, rows: Tensor) -> Tensor:
    distances = torch.cdist(points[rows], points, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.sum(dim=1)
