from __future__ import annotations

import pytest
import torch

from adv_detect.algorithms.attacks.adam import AdamState


@pytest.mark.parametrize("rate", [5e-4, 0.1])
def test_steps_are_those_of_torch(rate):
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randn(20, 3, 1, 2, 2, generator=generator, dtype=torch.float64)
    slopes *= torch.tensor([1e-6, 1.0, 1e3])[:, None, None, None]
    points = torch.zeros(3, 1, 2, 2, dtype=torch.float64)
    expected = points.clone().requires_grad_()
    optimizer, adam = torch.optim.Adam([expected], rate), AdamState.at_rest(points)
    for slope in slopes:
        expected.grad = slope
        optimizer.step()
        points -= adam.move(slope, rate)
    torch.testing.assert_close(points, expected.detach(), rtol=1e-9, atol=1e-12)


def test_rows_restart_and_leave_by_themselves():
    adam = AdamState.at_rest(torch.zeros(3, 2))
    slope = torch.tensor([[1.0, -1.0], [2.0, 0.0], [3.0, 3.0]])
    first = adam.move(slope, 0.1).clone()
    torch.testing.assert_close(first, 0.1 * slope.sign(), rtol=1e-3, atol=0)
    adam.move(slope, 0.1)
    adam.restart(torch.tensor([False, True, False]))
    assert adam.step.tolist() == [2, 0, 2]
    kept = adam.select(torch.tensor([1, 2]))
    again = kept.move(slope[1:], 0.1)
    assert torch.equal(again[0], first[1])
    assert kept.step.tolist() == [1, 3]
    assert adam.step.tolist() == [2, 0, 2]
