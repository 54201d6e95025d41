"""The medoid, against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

from adv_detect.algorithms.medoids import _approximate_sums
from adv_detect.algorithms.representatives import medoid_index
from adv_detect.errors import DataError


def points(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def sums(features: torch.Tensor) -> np.ndarray:
    return squareform(pdist(features.double().numpy())).sum(axis=1)


def test_medoid_on_a_line():
    assert medoid_index(torch.tensor([[0.0], [10.0], [3.0], [2.0], [1.0]])) == 3


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("shape", [(2, 3), (30, 1), (101, 7), (40, 300), (1100, 5)])
def test_medoid_is_the_one_of_scipy(shape, offset, scale):
    features = points(*shape, seed=shape[0]) * scale + offset * scale
    assert medoid_index(features) == int(sums(features).argmin())


@pytest.mark.parametrize("spread", [1e-3, 1e-10])
def test_medoid_of_a_tiny_spread_far_from_zero(spread):
    for seed in range(5):
        features = 1e3 + spread * points(60, 4, seed=seed, dtype=torch.float64)
        assert medoid_index(features) == int(sums(features).argmin())


def test_two_tight_clusters_far_apart():
    features = points(40, 6, seed=3, dtype=torch.float64) * 1e-7
    features[20:] += 1.0
    assert medoid_index(features) == int(sums(features).argmin())


def test_the_bound_holds_for_the_matrix_product():
    features = points(300, 20, seed=4).double() * 1e-4 + 50
    approximate, bounds = _approximate_sums(features, tile=64)
    assert np.all(np.abs(approximate.numpy() - sums(features)) <= bounds.numpy())
    assert bounds.max() < 1e-3 * approximate.min()  # and it is no empty promise


@pytest.mark.parametrize("budget", [1, 256])
def test_duplicates_give_the_first(budget):
    features = points(50, 8, seed=5)
    best = int(sums(features).argmin())
    assert medoid_index(torch.cat([features, features]), memory_budget_mb=budget) == best
    shifted = torch.cat([features[best:], features[:best], features])
    assert medoid_index(shifted, memory_budget_mb=budget) == 0


@pytest.mark.parametrize(
    "features",
    [
        torch.ones(7, 3),
        torch.full((5, 2), 0.1) + 1e3,
        torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]),
        torch.tensor([[-0.1], [0.1]]) + 7,
        torch.eye(6) * 0.3,
    ],
    ids=["constant", "constant-offset", "square", "pair", "simplex"],
)
def test_symmetric_sets_give_the_first(features):
    assert medoid_index(features) == 0


def test_rotated_polygon_ties_whatever_the_rounding():
    angle = torch.arange(12, dtype=torch.float64) * (2 * torch.pi / 12) + 0.3
    assert medoid_index(torch.stack([angle.cos(), angle.sin()], dim=1)) == 0


def test_the_medoid_moves_with_a_permutation():
    features = points(80, 5, seed=6)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(7))
    assert int(order[medoid_index(features[order])]) == medoid_index(features)


def test_blocks_do_not_change_the_answer():
    features = points(200, 3, seed=8).double()
    small, bounds = _approximate_sums(features, tile=7)
    whole, _ = _approximate_sums(features, tile=512)
    assert bool(((small - whole).abs() <= bounds).all())


def test_single_member_and_no_gradient_needed():
    assert medoid_index(torch.randn(1, 4, generator=torch.Generator().manual_seed(0))) == 0
    assert medoid_index(points(9, 2).requires_grad_()) == medoid_index(points(9, 2))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(0, 3), r"at least one row, got \(0, 3\)"),
        (torch.zeros(3), r"shape \(n, D\).*got \(3,\)"),
        (torch.tensor([[0.0], [float("nan")]]), "finite"),
    ],
    ids=["empty", "flat", "nan"],
)
def test_unusable_features(features, message):
    with pytest.raises(DataError, match=message):
        medoid_index(features)
