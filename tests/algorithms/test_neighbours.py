"""Nearest neighbours: exact, in blocks of bounded size, differentiable in the queries."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch.utils._python_dispatch import TorchDispatchMode

from adv_detect.algorithms import neighbours
from adv_detect.algorithms.neighbours import nearest
from adv_detect.errors import ConfigurationError, DataError


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation makes; views of given ones are none."""

    def __init__(self, *given: torch.Tensor) -> None:
        super().__init__()
        self.given = {one.untyped_storage().data_ptr() for one in given}
        self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() not in self.given:
                self.largest = max(self.largest, one.untyped_storage().nbytes() // one.element_size())
        return made


def drawn(rows: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) + 50


@pytest.mark.parametrize("elements", [10, 100, 10_000])
def test_it_agrees_with_scikit_learn_whatever_the_block(elements):
    queries, references = drawn(23, 6, 0), drawn(200, 6, 1)
    expected = NearestNeighbors(n_neighbors=7, algorithm="brute").fit(references.double()).kneighbors(queries.double())

    far, rows = nearest(queries, references, 7, elements=elements)

    assert rows.tolist() == expected[1].tolist()
    torch.testing.assert_close(far.double(), torch.from_numpy(expected[0]), rtol=1e-5, atol=1e-6)


def test_of_equally_near_ones_the_earlier_comes_first():
    references = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1], [5, 5]])
    far, rows = nearest(torch.zeros(1, 2), references, 3)
    assert rows.tolist() == [[0, 1, 2]]
    assert far.tolist() == [[1, 1, 1]]


def test_the_gradient_points_away_from_the_neighbour_and_is_zero_on_it():
    queries = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    far, _ = nearest(queries, torch.tensor([[0.0, 0.0], [90.0, 0.0]]), 1)
    (slope,) = torch.autograd.grad(far.sum(), queries)
    torch.testing.assert_close(slope, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_a_million_references_never_make_a_matrix_of_all_pairs():
    queries, references = drawn(16, 2, 0), drawn(1_000_000, 2, 1)
    elements = 2**16
    with LargestTensor(queries, references) as noted:
        by_blocks = neighbours._by_products(queries, references, 4, elements)
    expected = torch.cdist(queries[:2].double(), references.double()).topk(4, largest=False).indices

    assert 0 < noted.largest <= elements < 16 * 1_000_000 / 100
    assert by_blocks[:2].sort().values.tolist() == expected.sort().values.tolist()


@pytest.mark.skipif(find_spec("faiss") is None, reason="faiss, of the extra faces, is not installed")
def test_faiss_finds_the_same(monkeypatch):
    queries, references = drawn(30, 8, 0), drawn(500, 8, 1)
    expected = nearest(queries, references, 5)
    asked = []
    by_faiss = neighbours._by_faiss
    monkeypatch.setattr(neighbours, "_by_faiss", lambda *given: asked.append(given) or by_faiss(*given))
    monkeypatch.setattr(neighbours, "FAISS_FROM", 500)

    found = nearest(queries, references, 5, elements=1000)

    assert len(asked) == 1
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("k", [0, 6])
def test_more_neighbours_than_references_are_refused(k):
    with pytest.raises(ConfigurationError, match=f"k: expected 1 to 5, the number of references, got {k}"):
        nearest(torch.zeros(1, 2), torch.zeros(5, 2), k)


def test_other_widths_are_refused():
    with pytest.raises(DataError, match=r"references of shape \(M, 2\) like the queries, got \(5, 3\)"):
        nearest(torch.zeros(1, 2), torch.zeros(5, 3), 1)
