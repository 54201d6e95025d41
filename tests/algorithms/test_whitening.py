"""Whitening, against scikit-learn and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage, oas

from adv_detect.algorithms.whitening import (
    RowSampler,
    WithinClassCovariance,
    inverse_square_root,
    shrinkage_coefficient,
    shrunk_covariance,
)
from adv_detect.errors import ConfigurationError


@pytest.fixture
def sample() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(60, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    return mixed - mixed.mean(dim=0)


def test_inverse_square_root_by_hand():
    root = inverse_square_root(torch.tensor([[4.0, 0.0], [0.0, 0.25]], dtype=torch.float64))
    torch.testing.assert_close(root, torch.tensor([[0.5, 0.0], [0.0, 2.0]], dtype=torch.float64))


def test_inverse_square_root_whitens(sample):
    covariance = (sample.T @ sample).double()
    root = inverse_square_root(covariance)
    torch.testing.assert_close(root, root.T)
    torch.testing.assert_close(root @ covariance @ root, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-8)


def test_singular_matrices_stay_finite():
    rank_one = torch.ones(3, 3, dtype=torch.float64)
    assert torch.isfinite(inverse_square_root(rank_one)).all()
    assert torch.equal(inverse_square_root(torch.zeros(3, 3, dtype=torch.float64)), torch.eye(3, dtype=torch.float64))


def test_coefficients_are_those_of_scikit_learn(sample):
    values = sample.double().numpy()
    assert shrinkage_coefficient(sample, "ledoit_wolf") == ledoit_wolf_shrinkage(values, assume_centered=True)
    assert shrinkage_coefficient(sample, "oas") == oas(values, assume_centered=True)[1]
    assert 0 < shrinkage_coefficient(sample, "ledoit_wolf") < 1


def test_shrunk_covariance_is_the_one_of_scikit_learn(sample):
    fitted = LedoitWolf(assume_centered=True).fit(sample.double().numpy())
    covariance = sample.double().T @ sample.double() / len(sample)
    shrunk = shrunk_covariance(covariance, fitted.shrinkage_)
    np.testing.assert_allclose(shrunk.numpy(), fitted.covariance_, rtol=1e-10)


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_shrink_fully(rows):
    assert shrinkage_coefficient(torch.zeros(rows, 3), "oas") == 1.0


def test_unknown_shrinkage_lists_the_choices(sample):
    with pytest.raises(ConfigurationError, match=r"expected one of \[ledoit_wolf, oas\], got 'mle'"):
        shrinkage_coefficient(sample, "mle")


def test_the_covariance_is_tied_over_classes_and_exact(sample):
    sampler, covariance = RowSampler(100, 0), WithinClassCovariance(8, 100)
    centred = []
    for number, part in enumerate(sample.split(25)):
        shifted = part + 1000 * number
        rows, slots = sampler.offer(len(part))
        covariance.add(shifted, rows=rows, slots=slots)
        centred.append(shifted.double() - shifted.double().mean(dim=0))
    pooled = torch.cat(centred)
    coefficient = ledoit_wolf_shrinkage(pooled.float().double().numpy(), assume_centered=True)
    expected = inverse_square_root(shrunk_covariance(pooled.T @ pooled / len(pooled), coefficient))
    torch.testing.assert_close(covariance.whitening("ledoit_wolf", sampler.filled), expected.float())


def test_constant_features_and_single_images_do_not_break_it(sample):
    sampler, covariance = RowSampler(100, 0), WithinClassCovariance(9, 100)
    rows, slots = sampler.offer(len(sample))
    covariance.add(torch.cat([sample, torch.full((len(sample), 1), 3.0)], dim=1), rows=rows, slots=slots)
    assert torch.isfinite(covariance.whitening("oas", sampler.filled)).all()
    lone_sampler, lone = RowSampler(5, 0), WithinClassCovariance(2, 5)
    for _ in range(3):
        rows, slots = lone_sampler.offer(1)
        lone.add(torch.rand(1, 2, generator=torch.Generator().manual_seed(1)), rows=rows, slots=slots)
    assert torch.equal(lone.whitening("ledoit_wolf", lone_sampler.filled), torch.eye(2))


def run_sampler(size: int, seed: int, counts: list[int]) -> torch.Tensor:
    sampler, kept, start = RowSampler(size, seed), torch.full((size,), -1), 0
    for count in counts:
        rows, slots = sampler.offer(count)
        kept[slots] = torch.arange(start, start + count)[rows]
        start += count
    return kept[sampler.filled]


def test_sampler_keeps_all_rows_while_there_is_room():
    assert sorted(run_sampler(10, 0, [3, 0, 4]).tolist()) == list(range(7))


def test_sampler_is_bounded_distinct_seeded_and_whole_whatever_the_chunks():
    kept = run_sampler(20, 1, [30, 5, 65])
    assert len(set(kept.tolist())) == 20
    assert sorted(kept.tolist()) == sorted(run_sampler(20, 1, [100]).tolist())
    assert sorted(kept.tolist()) != sorted(run_sampler(20, 2, [100]).tolist())


def test_sampler_is_uniform():
    hits = torch.zeros(40)
    for seed in range(400):
        hits[run_sampler(10, seed, [20, 20])] += 1
    assert hits.min() > 60  # expected 100, standard deviation below 9
    assert hits.max() < 140
