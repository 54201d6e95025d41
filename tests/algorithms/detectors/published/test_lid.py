"""Local intrinsic dimensionality, against the formula written with NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from adv_detect.algorithms.detectors import build_detector
from adv_detect.algorithms.detectors.published.lid import intrinsic_dimensionality
from adv_detect.errors import ConfigurationError
from adv_detect.params import DetectorParams


def test_by_hand():
    """Neighbours at distances 1, 2 and 4: -3 / (log(1/4) + log(2/4) + log(4/4)) = 1 / log 2."""
    references = torch.tensor([[1.0, 0], [0, 2], [-4, 0], [0, -9], [9, 9]])
    found = intrinsic_dimensionality(torch.zeros(1, 2), references, 3)
    assert found.item() == pytest.approx(1 / math.log(2))


def test_it_agrees_with_numpy():
    generator = torch.Generator().manual_seed(0)
    points, references = torch.randn(9, 5, generator=generator), torch.randn(40, 5, generator=generator)
    far = np.sort(cdist(points.numpy(), references.numpy()), axis=1)[:, :12]
    expected = [-len(row) / np.sum(np.log(row / row[-1])) for row in far]
    np.testing.assert_allclose(intrinsic_dimensionality(points, references, 12).numpy(), expected, rtol=1e-4)


def test_an_image_is_no_neighbour_of_itself():
    references = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    others = torch.cat([references[:3], references[4:]])
    torch.testing.assert_close(
        intrinsic_dimensionality(references[3:4], references, 8), intrinsic_dimensionality(references[3:4], others, 8)
    )


def test_uniform_points_have_about_the_dimension_of_their_space():
    references = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(2))
    found = intrinsic_dimensionality(torch.full((1, 3), 0.5), references, 500)
    assert found.item() == pytest.approx(3, rel=0.15)


def test_equally_far_neighbours_give_something_finite():
    found = intrinsic_dimensionality(torch.zeros(1, 2), torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]), 3)
    assert torch.isfinite(found).all()
    assert found.item() > 1e6


@pytest.mark.parametrize("k", [1, 30])
def test_neighbours_that_the_minibatch_does_not_hold_are_refused(k, representatives):
    with pytest.raises(ConfigurationError, match=f"k: expected 2 to 29, one below minibatch, got {k}"):
        build_detector(DetectorParams(kind="lid", arguments={"k": k, "minibatch": 30}), representatives)
