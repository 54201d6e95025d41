from __future__ import annotations

import pytest
import torch

from adv_detect.algorithms.attacks.tanh_search import ConstantBisection, TanhSpace

IMAGES = torch.tensor([-1.0, 0.0, 2.9, 3.0]).reshape(1, 1, 2, 2)


@pytest.mark.parametrize(("limit", "apart"), [(1 - 1e-6, 1e-5), (1 - 1e-3, 3e-3)])
def test_tanh_space_gives_back_images_for_any_bounds(limit, apart):
    space = TanhSpace(-1.0, 3.0, limit)
    points = space.points(IMAGES)
    assert bool(points.isfinite().all())
    torch.testing.assert_close(space.pixels(points.tanh()), IMAGES, rtol=0, atol=apart)


def test_pixels_never_leave_the_bounds_and_their_slope_is_the_derivative():
    space = TanhSpace(-1.0, 3.0, 0.999)
    far = torch.tensor([-50.0, 0.0, 50.0])
    assert space.pixels(far.tanh()).tolist() == [-1.0, 1.0, 3.0]
    points = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(space.pixels(points.tanh()).sum(), points)
    torch.testing.assert_close(space.slope(points.detach().tanh()), expected)


def test_bisection_by_hand():
    search = ConstantBisection.start(torch.zeros(2, 1, 1, 1), 1.0)
    search.narrow(torch.tensor([False, True]))
    assert search.constant.tolist() == [10.0, 0.5]
    assert search.pinned().tolist() == [False, False]
    search.narrow(torch.tensor([True, False]))
    assert search.constant.tolist() == [5.5, 0.75]
    assert search.pinned().tolist() == [False, True]
    search.narrow(torch.tensor([False, True]))
    assert search.constant.tolist() == [7.75, 0.625]


def test_rows_whose_trial_goes_on_keep_their_constant():
    search = ConstantBisection.start(torch.zeros(3, 1), 2.0)
    search.narrow(torch.tensor([True, True, False]), ended=torch.tensor([True, False, False]))
    assert search.constant.tolist() == [1.0, 2.0, 2.0]
    assert search.upper.tolist() == [2.0, float("inf"), float("inf")]
    assert search.select(torch.tensor([1])).lower.tolist() == [0.0]


def test_the_last_trial_takes_the_largest_constant_without_a_success():
    search = ConstantBisection.start(torch.zeros(2, 1), 1.0)
    search.narrow(torch.tensor([True, False]), last=torch.tensor([True, True]))
    assert search.constant.tolist() == [0.5, pytest.approx(1e10)]
    search.narrow(torch.tensor([False, False]))
    assert search.constant.tolist() == [0.75, pytest.approx(1e10)]
