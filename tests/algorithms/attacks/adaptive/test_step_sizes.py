"""Step sizes that halve by themselves."""

from __future__ import annotations

import pytest
import torch

from adv_detect.algorithms.attacks.adaptive.step_sizes import StepSizes, checkpoints


def test_checkpoints_are_those_of_the_source():
    """Shares 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 of the steps (Croce and Hein 2020, section 3)."""
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)


@pytest.mark.parametrize("steps", [1, 2, 5, 12])
def test_few_steps_have_few_checkpoints_within_them(steps):
    found = checkpoints(steps)
    assert list(found) == sorted(set(found))
    assert all(1 <= one <= steps for one in found)


def test_slow_and_stuck_images_halve_and_the_others_go_on():
    """Of four images the first improved in 8 of 10 steps, the second in 7; the third and fourth are judged again."""
    sizes = StepSizes.start(2.0, torch.zeros(4))
    for step in range(10):
        sizes = sizes.count(torch.tensor([step < 8, step < 7, True, True]))
    sizes, halved = sizes.check(10, torch.tensor([1.0, 1.0, 1.0, 1.0]))
    assert halved.tolist() == [False, True, False, False]
    assert sizes.sizes.tolist() == [2.0, 1.0, 2.0, 2.0]

    for _ in range(4):
        sizes = sizes.count(torch.ones(4, dtype=torch.bool))
    sizes, halved = sizes.check(4, torch.tensor([0.5, 1.0, 1.0, 0.9]))
    assert halved.tolist() == [False, False, True, False], "no better best at an unchanged size halves, too"
    assert sizes.sizes.tolist() == [2.0, 1.0, 1.0, 2.0]
