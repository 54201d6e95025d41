"""Neighbours against scikit-learn, in blocks, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from adv_detect.algorithms.neighbours import nearest
from adv_detect.errors import DataError


@pytest.mark.parametrize("block", [3, 7, 4096])
def test_it_agrees_with_scikit_learn_whatever_the_block(block):
    generator = torch.Generator().manual_seed(0)
    queries, references = torch.randn(11, 5, generator=generator), torch.randn(40, 5, generator=generator)

    distances, indices = nearest(queries, references, 4, block)

    wanted, order = NearestNeighbors(n_neighbors=4).fit(references.numpy()).kneighbors(queries.numpy())
    np.testing.assert_allclose(distances.numpy(), wanted, rtol=1e-5)
    np.testing.assert_array_equal(indices.numpy(), order)


def test_close_points_far_from_the_origin_are_told_apart():
    references = torch.tensor([[1e4, 0.0], [1e4 + 0.01, 0.0]])

    _, indices = nearest(references + torch.tensor([0.004, 0.0]), references, 1)

    assert indices.flatten().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("queries", "k", "match"),
    [
        (torch.zeros(2, 3), 5, "expected 1 to 4 neighbours, as there are references, got 5"),
        (torch.zeros(2, 3), 0, "expected 1 to 4 neighbours"),
        (torch.zeros(2, 2), 1, r"of one width, got \(2, 2\) and \(4, 3\)"),
    ],
)
def test_what_cannot_be_searched_is_refused(queries, k, match):
    with pytest.raises(DataError, match=match):
        nearest(queries, torch.zeros(4, 3), k)
