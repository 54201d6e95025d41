from __future__ import annotations

import numpy as np
import pytest
import torch

from adv_detect.algorithms.attacks.perturbations import (
    noise_of_same_norm,
    perturbation_norms,
    verify_result,
)
from adv_detect.algorithms.attacks.result import AttackResult
from adv_detect.algorithms.margins import margin
from adv_detect.errors import AttackError

BOUNDS = (0.0, 1.0)


def _images(count=6, seed=0):
    return torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(seed)) * 0.6 + 0.2


def _result(images, success=None):
    count = len(images)
    flags = torch.ones(count, dtype=torch.bool) if success is None else torch.tensor(success)
    zeros = torch.zeros(count, dtype=torch.int64)
    return AttackResult(images, flags, zeros, zeros)


def test_margin_by_hand():
    assert margin(torch.tensor([[1.0, 4.0, 2.5], [100.0, 3.0, 100.0]])).tolist() == [1.5, 0.0]


def test_norms_agree_with_numpy():
    images, attacked = _images(), _images(seed=1)
    norms = perturbation_norms(images, attacked)
    shift = (attacked - images).flatten(1).numpy()
    np.testing.assert_allclose(norms["l2"], np.linalg.norm(shift, axis=1), rtol=1e-6)
    np.testing.assert_allclose(norms["linf"], np.abs(shift).max(axis=1), rtol=1e-6)


def test_sound_results_pass():
    images = _images()
    verify_result(_result(images + 0.1), images, BOUNDS, 0.1, "linf")
    verify_result(_result(images, [False] * 6), images, BOUNDS, None, None)


def _spoil(value):
    attacked = _images() + 0.05
    attacked[2, 0, 3, 3] = value
    return attacked


@pytest.mark.parametrize(
    ("attacked", "message"),
    [
        (_images(), r"6 of 6 attacked images are called a success but equal their source \(rows \[0, 1, 2, 3, 4\]\)"),
        (_spoil(1.01), r"1 of 6 attacked images leave the pixel range \[0.0, 1.0\] \(rows \[2\]\)"),
        (_spoil(float("nan")), r"1 of 6 attacked images hold pixels that are not finite"),
        (_images() + 0.11, r"6 of 6 attacked images are further than epsilon = 0.1 \(linf\)"),
        (_images(5), r"expected attacked images of shape \(6, 1, 5, 5\), got \(5, 1, 5, 5\)"),
    ],
)
def test_impossible_results_are_refused(attacked, message):
    with pytest.raises(AttackError, match=message):
        verify_result(_result(attacked), _images(), BOUNDS, 0.1, "linf")


@pytest.mark.parametrize("norm", ["l1", "l2", "linf", None])
def test_noise_has_the_norm_of_the_perturbation(norm):
    images = _images(20).clamp(0.2, 0.9)
    images[:, :, :2] = 0.0
    attacked = (images + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(3))).clamp(0, 1)
    noisy = noise_of_same_norm(images, attacked, norm=norm, bounds=BOUNDS, seed=1)
    order = {"l1": 1, "l2": 2, "linf": np.inf, None: 2}[norm]
    wanted, reached = (np.linalg.norm((one - images).flatten(1), ord=order, axis=1) for one in (attacked, noisy))
    np.testing.assert_allclose(reached, wanted, rtol=1e-3)
    assert 0 <= float(noisy.min()) <= float(noisy.max()) <= 1


def test_noise_depends_on_the_seed_alone():
    images = _images()
    attacked = images + 0.05
    state = torch.get_rng_state()
    noisy = noise_of_same_norm(images, attacked, norm="l2", bounds=BOUNDS, seed=1)
    assert torch.equal(noisy, noise_of_same_norm(images, attacked, norm="l2", bounds=BOUNDS, seed=1))
    assert not torch.equal(noisy, noise_of_same_norm(images, attacked, norm="l2", bounds=BOUNDS, seed=2))
    assert torch.equal(state, torch.get_rng_state())


def test_noise_of_no_perturbation_is_none():
    images = _images()
    assert torch.equal(noise_of_same_norm(images, images, norm="l2", bounds=BOUNDS, seed=1), images)


def test_noise_stays_smaller_where_the_range_leaves_no_room():
    images, attacked = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    noisy = noise_of_same_norm(images, attacked, norm="l2", bounds=BOUNDS, seed=1)
    assert bool(torch.isfinite(noisy).all())
    assert bool((perturbation_norms(images, noisy)["l2"] < 4.0).all())
