"""1:N identification: whose face is it? Nearest neighbours in a gallery, by scikit-learn or FAISS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from adv_detect.errors import ConfigurationError, DataError, unknown_choice

Metric = Literal["euclidean", "cosine"]
Labels = NDArray[np.int64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Gallery:
    """Known faces.

    Attributes:
        embeddings: One or more per identity, ``(G, D)``; class representatives or images.
        labels: Identity of each, int64 ``(G,)``.
        metric: How embeddings are compared.
    """

    embeddings: Tensor
    labels: Tensor
    metric: Metric = "euclidean"

    def __post_init__(self) -> None:
        """Check shapes and metric."""
        if self.embeddings.ndim != 2 or self.labels.shape != self.embeddings.shape[:1] or not len(self.labels):
            shapes = f"{tuple(self.embeddings.shape)} and {tuple(self.labels.shape)}"
            raise DataError(f"expected a gallery (G, D), G >= 1, with labels (G,), got {shapes}")
        if self.metric not in ("euclidean", "cosine"):
            raise unknown_choice("metric", self.metric, ("euclidean", "cosine"))

    def prepared(self, embeddings: Tensor) -> Vectors:
        """Return embeddings ``(N, D)`` as an array for which Euclidean neighbours are the neighbours of the metric."""
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embeddings.shape[1]:
            width = self.embeddings.shape[1]
            raise DataError(
                f"expected embeddings of shape (N, {width}) as in the gallery, got {tuple(embeddings.shape)}"
            )
        vectors = functional.normalize(embeddings.float(), dim=1) if self.metric == "cosine" else embeddings.float()
        array: Vectors = vectors.detach().cpu().contiguous().numpy()
        return array


def identify(
    gallery: Gallery, probes: Tensor, *, k: int = 1, engine: Literal["sklearn", "faiss"] = "sklearn"
) -> Labels:
    """Name each probe by a majority vote of its k nearest gallery entries.

    Args:
        gallery: Known faces.
        probes: Embeddings ``(N, D)``.
        k: Number of neighbours.
        engine: ``sklearn``, or ``faiss`` (exact search; optional extra) for large galleries.

    Returns:
        Identity of each probe, int64 ``(N,)``; a tied vote goes to the smallest label.

    Raises:
        ConfigurationError: k outside ``[1, G]``, an unknown engine, or FAISS is not installed.
        DataError: Widths differ.
    """
    size = len(gallery.labels)
    if not 1 <= k <= size:
        raise ConfigurationError(f"k: expected 1 to {size} (the gallery's size), got {k}")
    if engine not in NEIGHBOUR_SEARCHES:
        raise unknown_choice("engine", engine, NEIGHBOUR_SEARCHES)
    neighbours = NEIGHBOUR_SEARCHES[engine](gallery.prepared(gallery.embeddings), gallery.prepared(probes), k)
    identities, codes = np.unique(gallery.labels.cpu().numpy(), return_inverse=True)
    votes = np.zeros((len(probes), len(identities)), dtype=np.int64)
    np.add.at(votes, (np.arange(len(probes))[:, None], codes[neighbours]), 1)
    named: Labels = identities[votes.argmax(axis=1)].astype(np.int64)
    return named


def identity_ranks(gallery: Gallery, probes: Tensor, labels: Tensor) -> Labels:
    """Rank the true identity of each probe among all identities, each at its nearest gallery entry.

    Args:
        gallery: Known faces.
        probes: Embeddings ``(N, D)``.
        labels: True identities, int64 ``(N,)``, all in the gallery.

    Returns:
        Ranks from 1, int64 ``(N,)``; identities at exactly the same distance count as before the true one.

    Raises:
        DataError: Widths differ, or an identity is not in the gallery.
    """
    from sklearn.metrics import pairwise_distances

    known = gallery.labels.cpu().numpy()
    truth = labels.cpu().numpy()
    strangers = sorted(set(truth.tolist()) - set(known.tolist()))
    if strangers or len(truth) != len(probes):
        raise DataError(
            f"expected a label of the gallery per probe, got {len(truth)} for {len(probes)}, new: {strangers}"
        )
    far = pairwise_distances(gallery.prepared(probes), gallery.prepared(gallery.embeddings))
    identities = np.unique(known)
    nearest = np.stack([far[:, known == identity].min(axis=1) for identity in identities], axis=1)
    own = np.take_along_axis(nearest, np.searchsorted(identities, truth)[:, None], axis=1)
    ranks: Labels = (nearest <= own).sum(axis=1)
    return ranks


def cumulative_match(ranks: Labels, at: Sequence[int] = (1, 5)) -> dict[int, float]:
    """Compute the cumulative match characteristic.

    Args:
        ranks: Ranks from 1, ``(N,)``.
        at: Ranks to report.

    Returns:
        Share of probes whose rank is at most each.

    Raises:
        DataError: There are no ranks.
    """
    if not len(ranks):
        raise DataError("expected at least one rank, got none")
    return {rank: float((ranks <= rank).mean()) for rank in at}


def _search_sklearn(gallery: Vectors, probes: Vectors, k: int) -> Labels:
    from sklearn.neighbors import NearestNeighbors

    found: Labels = (
        NearestNeighbors(n_neighbors=k, algorithm="brute").fit(gallery).kneighbors(probes, return_distance=False)
    )
    return found


def _search_faiss(gallery: Vectors, probes: Vectors, k: int) -> Labels:
    try:
        import faiss
    except ImportError as exc:
        raise ConfigurationError("engine: 'faiss' is not installed; install the extra 'faces', or use sklearn") from exc
    index = faiss.IndexFlatL2(gallery.shape[1])
    index.add(gallery)
    found: Labels = index.search(probes, k)[1]
    return found


NEIGHBOUR_SEARCHES: dict[str, Callable[[Vectors, Vectors, int], Labels]] = {
    "sklearn": _search_sklearn,
    "faiss": _search_faiss,
}
