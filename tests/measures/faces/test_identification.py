from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from adv_detect.errors import ConfigurationError, DataError
from adv_detect.measures.faces.identification import Gallery, cumulative_match, identify, identity_ranks

LINE = Gallery(torch.tensor([[0.0], [1.0], [4.0], [9.0]]), torch.tensor([7, 7, 3, 5]))


def random_gallery(metric="euclidean"):
    generator = torch.Generator().manual_seed(0)
    return Gallery(torch.randn(60, 6, generator=generator), torch.arange(60) % 9, metric)


def random_probes() -> torch.Tensor:
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("engine", ["sklearn", "faiss"])
def test_nearest_by_hand(engine):
    if engine == "faiss":
        pytest.importorskip("faiss")
    assert identify(LINE, torch.tensor([[1.5], [3.0], [8.0]]), engine=engine).tolist() == [7, 3, 5]


def test_votes_and_ties():
    assert identify(LINE, torch.tensor([[3.0]]), k=3).tolist() == [7]
    assert identify(LINE, torch.tensor([[6.5]]), k=2).tolist() == [3]


@pytest.mark.parametrize("engine", ["sklearn", "faiss"])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_agrees_with_the_classifier_of_sklearn(engine, k):
    if engine == "faiss":
        pytest.importorskip("faiss")
    gallery = random_gallery()
    model = KNeighborsClassifier(k).fit(gallery.embeddings.numpy(), gallery.labels.numpy())
    assert np.array_equal(
        identify(gallery, random_probes(), k=k, engine=engine), model.predict(random_probes().numpy())
    )


def test_cosine_ignores_length():
    gallery = Gallery(torch.tensor([[1.0, 0.0], [0.1, 0.1]]), torch.tensor([0, 1]), "cosine")
    assert identify(gallery, torch.tensor([[5.0, 4.0], [0.01, 0.0]])).tolist() == [1, 0]


def test_ranks_by_hand():
    ranks = identity_ranks(LINE, torch.tensor([[0.0], [3.0], [3.0], [3.0]]), torch.tensor([7, 3, 7, 5]))
    assert ranks.tolist() == [1, 1, 2, 3]
    assert cumulative_match(ranks, at=(1, 2, 3)) == {1: 0.5, 2: 0.75, 3: 1.0}


def test_rank_one_is_nearest_neighbour_accuracy():
    gallery, probes, labels = random_gallery("cosine"), random_probes(), torch.arange(40) % 9
    rank_one = cumulative_match(identity_ranks(gallery, probes, labels))[1]
    assert rank_one == pytest.approx((identify(gallery, probes) == labels.numpy()).mean())


def test_equal_distances_do_not_flatter():
    gallery = Gallery(torch.zeros(3, 2), torch.arange(3))
    assert identity_ranks(gallery, torch.ones(1, 2), torch.tensor([0])).tolist() == [3]


def test_order_of_the_gallery_does_not_matter():
    gallery, probes = random_gallery(), random_probes()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    shuffled = Gallery(gallery.embeddings[order], gallery.labels[order])
    assert np.array_equal(identify(gallery, probes, k=5), identify(shuffled, probes, k=5))


@pytest.mark.parametrize("k", [0, 5])
def test_wrong_k(k):
    with pytest.raises(ConfigurationError, match=f"k: expected 1 to 4 .* got {k}"):
        identify(LINE, torch.zeros(1, 1), k=k)


def test_unknown_engine_and_metric():
    with pytest.raises(ConfigurationError, match=r"engine: expected one of \[faiss, sklearn\], got 'annoy'"):
        identify(LINE, torch.zeros(1, 1), engine="annoy")
    with pytest.raises(ConfigurationError, match=r"metric: expected one of \[cosine, euclidean\], got 'l1'"):
        Gallery(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), "l1")


def test_faiss_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigurationError, match="'faiss' is not installed; install the extra 'faces', or use sklearn"):
        identify(LINE, torch.zeros(1, 1), engine="faiss")


def test_wrong_shapes():
    with pytest.raises(
        DataError, match=r"expected a gallery \(G, D\), G >= 1, with labels \(G,\), got \(2, 3\) and \(1,\)"
    ):
        Gallery(torch.zeros(2, 3), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(DataError, match=r"shape \(N, 1\) as in the gallery, got \(2, 3\)"):
        identify(LINE, torch.zeros(2, 3))
    with pytest.raises(DataError, match=r"new: \[8\]"):
        identity_ranks(LINE, torch.zeros(1, 1), torch.tensor([8]))
    with pytest.raises(DataError, match="at least one rank, got none"):
        cumulative_match(np.array([], dtype=np.int64))
