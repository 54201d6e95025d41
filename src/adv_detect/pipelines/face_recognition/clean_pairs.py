"""Nodes on clean pairs, on which the thresholds of gates rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adv_detect.algorithms.similarity_thresholds import threshold_at_rejection
from adv_detect.names import GATE_DETECTOR, UNTARGETED
from adv_detect.params import FaceRecognitionParams, RuntimeParams, ServingParams
from adv_detect.pipelines.face_recognition.rows import TRAIN, VALIDATION, joined, natural_faces
from adv_detect.pipelines.face_recognition.verification import attacked_pairs
from adv_detect.sharding import ShardStore


def pair_validation_faces(attack_embeddings: ShardStore, runtime: RuntimeParams) -> pd.DataFrame:
    """Pair each natural validation image with another picture of the same person that is not for testing.

    Args:
        attack_embeddings: Embeddings of natural and attacked images.
        runtime: Seed of the draw.

    Returns:
        Rows of :func:`adv_detect.pipelines.face_recognition.verification.attacked_pairs`.
    """
    parts = [natural_faces(attack_embeddings, split) for split in (TRAIN, VALIDATION)]
    return attacked_pairs(joined(*parts), [replace(parts[1], criterion=UNTARGETED)], seed=runtime.seed)


@dataclass(frozen=True)
class CleanPairs:
    """Similarities of clean pairs, ascending.

    Attributes:
        same: Of the same person, ``(n,)``.
        different: Of different people, ``(m,)``.
        twin_same: In the twin, of the same person, ``(k,)``; None where it is not asked.
    """

    same: Tensor
    different: Tensor
    twin_same: Tensor | None


def gather_clean_pairs(
    verification_scores: pd.DataFrame,
    validation_pair_scores: pd.DataFrame,
    face_recognition: FaceRecognitionParams,
    serving: ServingParams,
) -> CleanPairs:
    """Gather the similarities that the thresholds of the registered gate rest on.

    Args:
        verification_scores: Clean pairs of the protocol.
        validation_pair_scores: Clean pairs of the same person, of people whom the detectors know.
        face_recognition: The form of the gate.
        serving: The default rate.

    Returns:
        The similarities.

    Raises:
        DataError: The gate asks the twin, and the clean pairs cannot carry the default rate.
    """
    same = verification_scores["same"].to_numpy(bool)
    own, different = (_ascending(verification_scores["score"][kind]) for kind in (same, ~same))
    if face_recognition.gate.served == GATE_DETECTOR:
        return CleanPairs(own, different, None)
    found = _ascending(validation_pair_scores["twin_score"])
    threshold_at_rejection(found, serving.fpr)  # refused before it is registered, not when it is asked
    return CleanPairs(own, different, found)


def _ascending(values: pd.Series[float]) -> Tensor:
    return torch.sort(torch.tensor(values.to_numpy(dtype=np.float64))).values
