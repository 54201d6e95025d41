"""The medoid, against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

from adv_detect.algorithms import medoids
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


def screened(features: torch.Tensor, dtype: torch.dtype, rows: torch.Tensor | None = None, tile: int = 64):
    """Sums by products and their bounds, in units of the features."""
    found = features.double()
    unit, largest = medoids._in_unit_range(found, float(found.abs().max()))
    norms, rows = torch.linalg.vector_norm(unit, dim=1), torch.arange(len(unit)) if rows is None else rows
    approximate = medoids._approximate_sums(unit, norms, rows, dtype=dtype, tile=tile)
    bounds = medoids._error_bounds(norms, rows, approximate, width=unit.shape[1], largest=largest, dtype=dtype)
    scale = float(found.abs().max()) / largest
    return approximate * scale, bounds * scale


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1e25])
@pytest.mark.parametrize(("dtype", "sharp"), [(torch.float32, 1e-2), (torch.float64, 1e-6)])
def test_the_bounds_hold_for_the_matrix_product(dtype, sharp, scale):
    features = (points(300, 20, seed=4).double() + 50) * scale
    approximate, bounds = screened(features, dtype)
    assert np.all(np.abs(approximate.numpy() - sums(features)) <= bounds.numpy())
    assert bounds.max() < sharp * approximate.min()  # and they are no empty promise


def test_the_bound_of_single_precision_holds_for_tight_clusters_far_apart():
    features = points(200, 9, seed=5).double() * 1e-4  # distances within a cluster are lost in float32 altogether
    features[100:] += 30
    approximate, bounds = screened(features, torch.float32)
    errors = np.abs(approximate.numpy() - sums(features))
    assert errors.max() > 0
    assert np.all(errors <= bounds.numpy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_near_ties_that_single_precision_would_decide_wrongly(dtype):
    """Forty points beside the medoid: their sums differ by less than float32 can tell."""
    features = points(500, 30, seed=9).double()
    best = features[int(sums(features).argmin())]
    planted = (best + 1e-6 * points(40, 30, seed=10).double()).to(dtype)
    features = torch.cat([features.to(dtype), planted])
    exact, single = sums(features), screened(features, torch.float32)[0].numpy()
    right, second = np.sort(exact)[:2]
    assert second - right > 1e-12 * right  # no tie in float64
    assert int(single.argmin()) != int(exact.argmin())
    assert medoid_index(features) == int(exact.argmin())


def test_single_precision_leaves_few_members_for_double_precision():
    features = points(1500, 200)
    approximate, bounds = screened(features, torch.float32, tile=512)
    assert int((approximate - bounds <= (approximate + bounds).min()).sum()) <= 30


def test_sums_of_a_few_rows_are_those_of_all():
    features, rows = points(300, 12, seed=11), torch.tensor([3, 77, 210, 299])
    few, _ = screened(features, torch.float64, rows, tile=3)
    whole, bounds = screened(features, torch.float64)
    assert bool(((few - whole[rows]).abs() <= bounds[rows]).all())
    assert torch.allclose(few, whole[rows], rtol=1e-9, atol=0)


def test_products_in_lower_precision_do_not_screen(monkeypatch):
    """The bound is that of float32: where its products may be rounded further, double precision does all."""
    used = []
    sums_of = medoids._approximate_sums
    monkeypatch.setattr(
        medoids, "_approximate_sums", lambda *args, **kwargs: used.append(kwargs["dtype"]) or sums_of(*args, **kwargs)
    )
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    features = points(20, 3)
    assert medoid_index(features) == int(sums(features).argmin())
    assert used == [torch.float64]


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
    small, bounds = screened(features, torch.float64, tile=7)
    whole, _ = screened(features, torch.float64, tile=512)
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
