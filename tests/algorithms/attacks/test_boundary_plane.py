"""Projection onto a plane within the pixel range, against a root finder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from adv_detect.algorithms.attacks.boundary_plane import project_to_plane


def test_by_hand_without_a_bound_in_the_way():
    """From (0.5, 0.5) to x + y = 0.6: both fall by 0.2."""
    points, normals = torch.full((1, 2), 0.5), torch.ones(1, 2)
    moved = project_to_plane(points, normals, torch.tensor([0.6]), low=0.0, high=1.0)
    torch.testing.assert_close(moved, torch.full((1, 2), 0.3))


def test_by_hand_with_a_pixel_at_its_bound():
    """From (0.9, 0.2) to x + y = 1.5: x stops at 1, so y makes the rest of the way."""
    moved = project_to_plane(torch.tensor([[0.9, 0.2]]), torch.ones(1, 2), torch.tensor([1.5]), low=0.0, high=1.0)
    torch.testing.assert_close(moved, torch.tensor([[1.0, 0.5]]))


def test_as_a_root_finder_says():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(20, 30, generator=generator, dtype=torch.float64).mul(1.6).sub(0.3).clamp(0, 1)
    normals = torch.randn(20, 30, generator=generator, dtype=torch.float64)
    offsets = (normals * points).sum(dim=1) + torch.linspace(-4, 4, 20, dtype=torch.float64)
    found = project_to_plane(points, normals, offsets, low=0.0, high=1.0)
    for row in range(20):
        start, normal = points[row].numpy(), normals[row].numpy()

        def beyond(size, start=start, normal=normal, offset=float(offsets[row])):
            return float(normal @ np.clip(start + size * normal, 0, 1)) - offset

        size = brentq(beyond, -1e3, 1e3, xtol=1e-13)
        np.testing.assert_allclose(found[row], np.clip(start + size * normal, 0, 1), atol=1e-5)


@pytest.mark.parametrize(("offset", "corner"), [(9.0, [1.0, 0.0]), (-9.0, [0.0, 1.0])])
def test_a_plane_out_of_reach_leads_to_the_corner_next_to_it(offset, corner):
    points, normals = torch.tensor([[0.4, 0.6]]), torch.tensor([[2.0, -1.0]])
    moved = project_to_plane(points, normals, torch.tensor([offset]), low=0.0, high=1.0)
    torch.testing.assert_close(moved, torch.tensor([corner]))


def test_a_point_on_its_plane_stays():
    points = torch.tensor([[0.25, 0.5]])
    assert torch.equal(project_to_plane(points, torch.ones(1, 2), torch.tensor([0.75]), low=0.0, high=1.0), points)
