"""Scores of clean images, from their stored activations."""

from __future__ import annotations

import pandas as pd
from torch import Tensor

from adv_detect.algorithms.attacks.deep_features_objective import nearest_classes
from adv_detect.algorithms.detectors import (
    StoredDetector,
    score_activations,
)
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import DataError
from adv_detect.jobs.activations import read_activations
from adv_detect.params import Split
from adv_detect.sharding import ShardContent, ShardStore


def score_naturals(
    activations: ShardStore, split: Split, stored: StoredDetector, representatives: Representatives
) -> pd.DataFrame:
    """Score the clean images of a split from their stored activations.

    Args:
        activations: Activations of natural and attacked images.
        split: Which images.
        stored: The detector.
        representatives: Class representatives, which name the nearest class.

    Returns:
        One row per image: source_index, source_id, label, predicted, nearest (class of the nearest medoid of the last
        layer), score.
    """
    medoids = representatives.medoids[-1]
    natural = activations.select(split=split, natural=True)
    frames = [_score_shard(content, stored, medoids) for content in natural.values()]
    if not frames:
        raise DataError(
            f"activations: expected natural images of the {split} split; run the pipeline detector_training"
        )
    return pd.concat(frames, ignore_index=True).sort_values("source_index", ignore_index=True)


def _score_shard(content: ShardContent, stored: StoredDetector, medoids: Tensor) -> pd.DataFrame:
    tensors, activations = content.tensors, read_activations(content)
    *_, last = activations.features.values()
    return pd.DataFrame(
        {
            "source_index": tensors["source_index"].numpy(),
            "source_id": content.metadata["source_ids"],
            "label": tensors["label"].numpy(),
            "predicted": tensors["predicted"].numpy(),
            "nearest": nearest_classes(last, medoids).numpy(),
            "score": score_activations(stored.detector, activations).numpy(),
        }
    )
