"""Projection of images onto a hyperplane within the pixel range: the exact answer where a network is linear."""

from __future__ import annotations

import torch
from torch import Tensor

NEWTON_STEPS = 16
"""Most steps of Newton's method; each finds more pixels that have reached a bound, and a few find nearly all."""
SMALLEST_SLOPE = 1e-20
ROUNDING = 1e-6


def project_to_plane(points: Tensor, normals: Tensor, offsets: Tensor, *, low: float, high: float) -> Tensor:
    """Find the nearest points of hyperplanes within the pixel range.

    The answer is ``clip(points + s * normals)`` for one number s per row. How far that gets along the normal is concave
    in ``|s|``, since pixels only ever reach a bound; so Newton's method climbs to s from below, in finitely many steps.

    Args:
        points: Where to start, within the pixel range, ``(N, D)``.
        normals: Normals of the planes, of any length above 0, ``(N, D)``.
        offsets: The plane of a row is all x with ``normals @ x = offsets``, ``(N,)``.
        low: Lowest pixel value.
        high: Highest pixel value.

    Returns:
        Points ``(N, D)``; where a plane lies outside the pixel range, the point of the range next to it.
    """
    missing = offsets - (normals * points).sum(dim=1)
    directions = normals * missing.sign()[:, None]
    wanted = missing.abs()
    answer, moved = points.clone(), points
    rows, size = torch.arange(len(points), device=points.device), torch.zeros_like(wanted)
    for _ in range(NEWTON_STEPS):
        free = torch.where(directions > 0, moved < high, moved > low)
        slope = (directions.square() * free).sum(dim=1)
        lacking = wanted - (directions * (moved - points)).sum(dim=1)
        going = ((lacking > ROUNDING * wanted) & (slope > SMALLEST_SLOPE)).nonzero().flatten()
        if not len(going):
            break
        if len(going) < len(rows):  # only these rows cost another step
            points, directions, wanted = points[going], directions[going], wanted[going]
            rows, size, lacking, slope = rows[going], size[going], lacking[going], slope[going]
        size = size + lacking / slope
        moved = (points + size[:, None] * directions).clamp(low, high)
        answer[rows] = moved
    return answer
