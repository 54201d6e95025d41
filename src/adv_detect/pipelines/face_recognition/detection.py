"""Distances of deep-features attacks to the class representatives, and their detection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from adv_detect.algorithms.attacks.registry import attacks_on_features
from adv_detect.algorithms.representatives import Representatives
from adv_detect.measures.detector_keys import MACRO, TRAINED_ON_ALL, configuration_labels
from adv_detect.names import NATURAL
from adv_detect.params import AdversarialGenerationParams, DetectorTrainingParams
from adv_detect.pipelines.face_recognition.rows import FaceRows, attacked_faces, natural_faces
from adv_detect.sharding import ShardStore

Distances: TypeAlias = NDArray[np.float64]
SHOWN = ("attack", "criterion", "form", "auc", "auc_low", "auc_high", "tpr_at_fpr_05", "n_adversarial", "n_natural")


def measure_distances(attack_embeddings: ShardStore, representatives: Representatives) -> pd.DataFrame:
    """Measure how near attacks come to the medoid of the identity aimed at, at the last layer.

    Args:
        attack_embeddings: Embeddings of natural and attacked images.
        representatives: Class representatives.

    Returns:
        One row per successful targeted adversarial of the test split and, as ``natural``, per natural test image:
        attack, form, distance (Euclidean, to the medoid of the target; of a natural image to that of its own
        identity).
    """
    medoids = representatives.medoids[-1]
    natural = natural_faces(attack_embeddings, "test")
    frames = [_frame(natural, _distances(natural.embedding, medoids, natural.label))]
    frames += [
        _frame(one, _distances(one.embedding, medoids, one.target))
        for one in _reached(attacked_faces(attack_embeddings))
    ]
    return pd.concat(frames, ignore_index=True)


def summarise_distances(distances: pd.DataFrame) -> pd.DataFrame:
    """Give median and the middle 80 % of the distances of each attack.

    Args:
        distances: Rows of :func:`measure_distances`.

    Returns:
        One row per attack: attack, form, n, median, low, high.
    """
    groups = distances.groupby(["attack", "form"], sort=False)["distance"]
    table = groups.agg(n="size", median="median", low=lambda one: one.quantile(0.1), high=lambda one: one.quantile(0.9))
    return table.reset_index()


def compare_detection(
    detection_metrics: pd.DataFrame,
    adversarial_generation: AdversarialGenerationParams,
    detector_training: DetectorTrainingParams,
) -> pd.DataFrame:
    """Compare detectors trained with and without deep-features attacks, on deep-features attacks.

    Args:
        detection_metrics: The detection metrics.
        adversarial_generation: Which attacks are on deep features, and which are for training.
        detector_training: The configurations trained with one attack left out, and the seeds.

    Returns:
        One row per configuration x training x attack, all of the first seed and of the criterion trained on:
        configuration (label), training (``classifier attacks only`` or ``with deep features``), attack, criterion,
        form, auc, auc_low, auc_high, tpr_at_fpr_05, n_adversarial, n_natural. Rows ``macro``: attacks on the class.
        Empty without deep-features attacks.
    """
    attacks = adversarial_generation.active
    deep = {name: attacks[name] for name in attacks_on_features(attacks)}
    wording = _trainings([name for name, one in deep.items() if one.train])
    rows = detection_metrics[
        detection_metrics["trained_on"].isin(wording)
        & detection_metrics["attack"].isin([*deep, MACRO] if deep else [])
        & (detection_metrics["seed"] == detector_training.seeds[0])
        & (detection_metrics["variant"] == "float")
        & (detection_metrics["trained_criterion"] == detection_metrics["criterion"])
    ]
    compared = rows[rows["configuration"].isin(_compared(rows, detector_training))]
    labels = configuration_labels(compared) if len(compared) else {}
    named = compared.assign(
        configuration=compared["configuration"].astype(str).map(labels),
        training=compared["trained_on"].astype(str).map(wording),
    )
    table = named[["configuration", "training", *SHOWN]]
    order = ["criterion", "form", "attack", "configuration", "training"]
    return table.sort_values(order, kind="stable").reset_index(drop=True)


def _trainings(trained: list[str]) -> dict[str, str]:
    """Training sets in words by value of the column ``trained_on``."""
    if not trained:
        return {TRAINED_ON_ALL: "classifier attacks only"}
    without = f"without-{trained[0]}"
    only = "classifier attacks only" if len(trained) == 1 else f"without {trained[0]}"
    return {without: only, TRAINED_ON_ALL: "with deep features"}


def _compared(rows: pd.DataFrame, params: DetectorTrainingParams) -> list[str]:
    """Configurations that were trained in every way there is; all of them where there is one way."""
    if rows["trained_on"].nunique() < 2:
        return list(params.active)
    return list(params.leave_one_out)


def _reached(attacked: Iterable[FaceRows]) -> Iterable[FaceRows]:
    for rows in attacked:
        if rows.criterion == "targeted" and bool(rows.success.any()):
            yield rows.take(np.flatnonzero(rows.success.numpy()))


def _distances(embedding: torch.Tensor, medoids: torch.Tensor, classes: torch.Tensor) -> Distances:
    found: Distances = (embedding.double() - medoids[classes].double()).norm(dim=1).numpy()
    return found


def _frame(rows: FaceRows, distances: Distances) -> pd.DataFrame:
    labels: dict[str, Any] = {"attack": rows.attack, "form": rows.form if rows.attack != NATURAL else "none"}
    return pd.DataFrame({**labels, "distance": distances})
