from __future__ import annotations

import pytest
import torch

from adv_detect.algorithms.pixels import quantise

BOUNDS = (0.0, 1.0)


def test_quantise_by_hand():
    pixels = torch.tensor([-1.0, -0.9, 0.1, 0.6, 1.0])
    assert quantise(pixels, (-1.0, 1.0), levels=3).tolist() == [-1.0, -1.0, 0.0, 1.0, 1.0]


def test_quantise_is_idempotent_and_within_half_a_step():
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    once = quantise(images, BOUNDS)
    assert torch.equal(once, quantise(once, BOUNDS))
    assert float((once - images).abs().max()) <= 0.5 / 255 + 1e-7
    grey = torch.arange(256) / 255
    torch.testing.assert_close(quantise(grey, BOUNDS), grey)
    torch.testing.assert_close(quantise(torch.arange(256.0), (0.0, 255.0)), torch.arange(256.0))


def test_quantise_needs_two_levels():
    with pytest.raises(ValueError, match="expected at least 2, got 1"):
        quantise(torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)), BOUNDS, levels=1)
