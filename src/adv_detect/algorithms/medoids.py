"""The exact medoid of a set of vectors: single precision screens, double precision decides."""

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

    Exact. Matrix products give the sum of every member in float32, with a proven bound of its error
    (:func:`_error_bounds`); members whose lower bound lies above the least upper bound cannot be the medoid. Those that
    are left, mostly a few in a hundred, are summed in float64 by the same products and screened by the same bound; what
    is then left is measured coordinate difference by coordinate difference. A member within float64 rounding of the
    best passes both screens, so the index is that of float64 throughout.

    Args:
        features: Shape ``(n, D)``, at least one row.
        memory_budget_mb: Upper limit in MiB of the distances held at a time.

    Returns:
        Row of the medoid. Where sums agree within float64 rounding the first such row.

    Raises:
        DataError: There is no row, the shape is not ``(n, D)``, or a value is not finite.
    """
    largest = _largest_coordinate(features)
    points, count = features.detach().to(torch.float64), len(features)
    if count == 1:
        return 0
    budget = max(memory_budget_mb * BYTES_PER_MB // BYTES_PER_DISTANCE, count)
    tie = 1 + FLOAT64_EPS * (count + points.shape[1])
    unit, largest = _in_unit_range(points, largest)
    norms = torch.linalg.vector_norm(unit, dim=1)
    candidates = torch.arange(count, device=points.device)
    for dtype in (torch.float32, torch.float64) if _single_is_single() else (torch.float64,):
        sums = _approximate_sums(unit, norms, candidates, dtype=dtype, tile=min(TILE, math.isqrt(budget)))
        bounds = _error_bounds(norms, candidates, sums, width=unit.shape[1], largest=largest, dtype=dtype)
        candidates = candidates[sums - bounds <= (sums + bounds).min() * tie]
        if len(candidates) == 1:
            return int(candidates)
    exact = torch.cat([_exact_sums(points, rows) for rows in torch.split(candidates, max(1, budget // count))])
    return int(candidates[torch.nonzero(exact <= exact.min() * tie)[0]])


def _largest_coordinate(features: Tensor) -> float:
    """Check the features; the largest absolute value in them."""
    if features.dim() != 2 or len(features) == 0:
        raise DataError(
            f"features: expected shape (n, D) with at least one row, got {tuple(features.shape)}; "
            "a class needs at least one image"
        )
    low, high = (float(one) for one in features.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError("features: expected finite numbers, got NaN or infinity; check the network and its images")
    return max(abs(low), abs(high))


def _single_is_single() -> bool:
    """Tell whether float32 products are computed as such: the bound does not hold for TF32 and bfloat16."""
    return torch.get_float32_matmul_precision() == "highest" and not torch.backends.cuda.matmul.allow_tf32


def _in_unit_range(points: Tensor, largest: float) -> tuple[Tensor, float]:
    """Move the mean to zero and divide by a power of two, which rounds nothing, so that float32 holds all squares.

    Returns:
        The points, at most 1 in size, and the largest coordinate before centring in the same unit.
    """
    scale = 2.0 ** (math.frexp(largest)[1] + 1)
    centred = points - points.mean(dim=0)
    return centred.div_(scale), largest / scale


def _approximate_sums(unit: Tensor, norms: Tensor, rows: Tensor, *, dtype: torch.dtype, tile: int) -> Tensor:
    """Sum the distances of some rows to all by one matrix product, ``[-2a, |a|^2, 1] . [b, 1, |b|^2] = |a - b|^2``.

    Args:
        unit: All rows, float64, ``(n, D)``.
        norms: Their norms, ``(n,)``.
        rows: Which of them are summed, ascending, ``(k,)``; where they are most of all rows, each block serves both
            of its sides.
        dtype: Precision of products and roots; sums of blocks are added up in float64.
        tile: Side of a block.

    Returns:
        Sums ``(k,)``, float64.
    """
    rounded, squares = unit.to(dtype), norms[:, None].square().to(dtype)
    ones = torch.ones_like(squares)
    left, right = torch.cat([-2 * rounded, squares, ones], dim=1), torch.cat([rounded, ones, squares], dim=1)
    if 2 * len(rows) > len(unit):
        return _symmetric_sums(left, right, tile)[rows]
    return torch.cat([_block_sums(left[part], right, tile) for part in torch.split(rows, tile)])


def _symmetric_sums(left: Tensor, right: Tensor, tile: int) -> Tensor:
    """Sum over all rows, each block used for both sides."""
    sums = torch.zeros(len(left), dtype=torch.float64, device=left.device)
    for start in range(0, len(left), tile):
        rows = slice(start, start + tile)
        for other in range(start, len(left), tile):
            block = _distances(left[rows], right[other : other + tile])
            sums[rows] += block.sum(dim=1)
            if other > start:
                sums[other : other + tile] += block.sum(dim=0)
    return sums


def _block_sums(left: Tensor, right: Tensor, tile: int) -> Tensor:
    """Sum over the columns for a few rows."""
    sums = torch.zeros(len(left), dtype=torch.float64, device=left.device)
    for part in torch.split(right, tile):
        sums += _distances(left, part).sum(dim=1)
    return sums


def _distances(left: Tensor, right: Tensor) -> Tensor:
    return (left @ right.T).clamp_min_(0).sqrt_()


def _error_bounds(
    norms: Tensor, rows: Tensor, sums: Tensor, *, width: int, largest: float, dtype: torch.dtype
) -> Tensor:
    """Bound the rounding error of each sum, by ``eps`` of the precision, twice its unit of rounding ``u``.

    - An inner product of length ``D + 2`` is off by at most ``(D + 2) u`` times the sum of the sizes of its terms, in
      whatever order they are added (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), and these are
      at most ``2 |a||b| + |a|^2 + |b|^2 <= 2 (|a|^2 + |b|^2)``. The squares in it are sums of D terms, of coordinates
      before these are rounded: at most ``(D + 8) u (|a|^2 + |b|^2)`` more. So a squared distance is off by at most
      ``2 (D + 8) eps (|a|^2 + |b|^2)``, which leaves ``D u`` for the terms of higher order. Its root is
      off by no more than the root of that, and ``sqrt(s + t) <= sqrt(s) + sqrt(t)`` sums it up.
    - Rounded coordinates move a point by ``eps |a|`` at most, centring by ``eps64 sqrt(D) max|x|``; numbers below the
      range of the precision are lost.
    - Roots and adding n terms cost ``n eps`` of the sum.

    Args:
        norms: Norms of all rows, float64, ``(n,)``.
        rows: The rows that were summed, ``(k,)``.
        sums: Their sums, ``(k,)``.
        width: Number of coordinates D.
        largest: Largest coordinate before centring.
        dtype: The precision.

    Returns:
        Bounds ``(k,)``, float64.
    """
    count, number = len(norms), torch.finfo(dtype)
    both = count * norms[rows] + norms.sum()
    expansion = (math.sqrt(2 * (width + 8) * number.eps) + number.eps) * both
    below_range = count * math.sqrt(4 * (width + 8) * number.tiny)
    centring = 2 * count * FLOAT64_EPS * math.sqrt(width) * largest
    return expansion + below_range + centring + count * number.eps * sums


def _exact_sums(points: Tensor, rows: Tensor) -> Tensor:
    distances = torch.cdist(points[rows], points, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.sum(dim=1)
