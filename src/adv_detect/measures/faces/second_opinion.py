"""Verdicts of the twin on pairs, at thresholds that are fixed on other folds."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from adv_detect.algorithms.similarity_thresholds import threshold_at_rejection
from adv_detect.measures.faces.verification import Flags, Scores


def crossfit_parts(similarities: Scores, same: Flags, folds: NDArray[np.int64], rate: float) -> Flags:
    """Tell pairs apart at thresholds fixed on the pairs of the same person in the other folds.

    Args:
        similarities: Similarity of each pair in the twin, ``(N,)``.
        same: Whether it shows the same person, ``(N,)``.
        folds: Its fold, ``(N,)``.
        rate: Share of clean pairs of the same person that may be turned away.

    Returns:
        Whether the pair is turned away, ``(N,)``; of a single fold at its own threshold.
    """
    parted = np.zeros(len(similarities), dtype=bool)
    for fold in np.unique(folds):
        others = similarities[same & (folds != fold)]
        chosen = others if len(others) else similarities[same]
        inside = folds == fold
        parted[inside] = ~(similarities[inside] >= threshold_at_rejection(torch.tensor(chosen), rate))
    return parted
