"""1:1 verification: are two images the same person? Scores are cosine similarities; accepted from the threshold on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from adv_detect.algorithms.roc import area, curve, equal_error_rate
from adv_detect.errors import ConfigurationError, DataError

DEFAULT_FARS = (1e-1, 1e-2, 1e-3)
FEW_FALSE_ACCEPTS = 10
"""False accepts below which a true-accept rate is called uncertain."""

Scores = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Roc:
    """Points of the ROC, from nothing accepted to all accepted.

    Attributes:
        far: False-accept rate, ascending, ``(P,)``.
        tar: True-accept rate, ``(P,)``.
        thresholds: Similarity from which a pair is accepted, descending, the first infinite, ``(P,)``.
    """

    far: Scores
    tar: Scores
    thresholds: Scores


@dataclass(frozen=True)
class AcceptRate:
    """True-accept rate at a false-accept rate.

    Attributes:
        far: The rate asked for.
        realised_far: The largest rate that these pairs can realise without exceeding it.
        tar: True-accept rate there.
        threshold: Similarity from which a pair is accepted.
        note: What to know when there are few different pairs for such a rate, else empty.
    """

    far: float
    realised_far: float
    tar: float
    threshold: float
    note: str


@dataclass(frozen=True)
class Verification:
    """Result on pairs.

    Attributes:
        roc: All operating points.
        auc: Area under the ROC.
        eer: Equal error rate: false accepts as frequent as false rejects.
        eer_threshold: Similarity threshold nearest to it, finite; of two that are equally near the higher.
        accept_rates: One per false-accept rate asked for.
        n_same: Number of pairs of the same person.
        n_different: Number of pairs of different people.
    """

    roc: Roc
    auc: float
    eer: float
    eer_threshold: float
    accept_rates: tuple[AcceptRate, ...]
    n_same: int
    n_different: int


def cosine_similarities(first: Tensor, second: Tensor) -> Tensor:
    """Compare embeddings pair by pair.

    Args:
        first: Shape ``(N, D)``.
        second: Shape ``(N, D)``.

    Returns:
        Cosine similarity in [-1, 1], ``(N,)``, float64; 0 where an embedding is the zero vector.

    Raises:
        DataError: The shapes differ or are not two-dimensional.
    """
    if first.ndim != 2 or first.shape != second.shape:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise DataError(f"expected embeddings of equal shape (N, D) on both sides, got {shapes}")
    return functional.cosine_similarity(first.double(), second.double(), dim=1)


def add_mirrored(embeddings: Tensor, mirrored: Tensor) -> Tensor:
    """Add the embeddings ``(N, D)`` of images and of their mirror images, as is usual for faces."""
    return embeddings + mirrored


def verify(scores: Scores, same: Flags, *, fars: Sequence[float] = DEFAULT_FARS) -> Verification:
    """Measure 1:1 verification.

    Args:
        scores: Similarity of each pair, ``(N,)``.
        same: Whether the pair shows the same person, ``(N,)``.
        fars: False-accept rates to report, each in (0, 1).

    Returns:
        ROC, AUC, EER and true-accept rates.

    Raises:
        DataError: Wrong shapes, NaN, or only one kind of pairs.
        ConfigurationError: A rate outside (0, 1).
    """
    check_scores(scores, same, both=True)
    found = curve(scores[same], scores[~same])
    roc = Roc(found.fpr, found.tpr, np.concatenate([[np.inf], found.thresholds[:-1]]))
    equal = equal_error_rate(found)
    n_same = int(same.sum())
    n_different = len(same) - n_same
    return Verification(
        roc=roc,
        auc=area(scores[same], scores[~same]),
        eer=equal.rate,
        eer_threshold=float(roc.thresholds[max(equal.point, 1)]),
        accept_rates=tuple(_accept_rate(roc, rate, n_different) for rate in fars),
        n_same=n_same,
        n_different=n_different,
    )


def _accept_rate(roc: Roc, far: float, n_different: int) -> AcceptRate:
    if not 0 < far < 1:
        raise ConfigurationError(f"false-accept rates: expected values in (0, 1), got {far}")
    point = int(np.flatnonzero(roc.far <= far)[-1])
    allowed = int(np.floor(far * n_different + 1e-9))
    note = ""
    if allowed < 1:
        note = f"no false accept is allowed among {n_different} different pairs; {int(np.ceil(1 / far))} are needed"
    elif allowed < FEW_FALSE_ACCEPTS:
        note = f"rests on {allowed} false accepts among {n_different} different pairs"
    return AcceptRate(far, float(roc.far[point]), float(roc.tar[point]), float(roc.thresholds[point]), note)


def check_scores(scores: Scores, same: Flags, *, both: bool) -> None:
    """Check scores and flags of pairs.

    Args:
        scores: To be of shape ``(N,)``, N >= 1, without NaN.
        same: To be boolean, ``(N,)``.
        both: Whether pairs of both kinds must be there.

    Raises:
        DataError: They are not so.
    """
    if scores.ndim != 1 or scores.shape != same.shape or same.dtype != bool or not len(scores):
        raise DataError(
            f"expected scores and boolean flags of shape (N,), N >= 1, got {scores.shape} and {same.shape} {same.dtype}"
        )
    if np.isnan(scores).any():
        raise DataError(f"expected scores without NaN, got {int(np.isnan(scores).sum())} among {len(scores)}")
    if both and same.all() == same.any():
        kind = "same person" if same.all() else "different people"
        raise DataError(f"expected pairs of the same person and of different people, got {len(same)} of {kind} only")
