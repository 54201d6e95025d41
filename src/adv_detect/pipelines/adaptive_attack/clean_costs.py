"""Costs of detectors on clean images, and their performance on ordinary attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adv_detect.algorithms.detectors import StoredDetector, score_activations
from adv_detect.algorithms.representatives import Representatives
from adv_detect.algorithms.roc import roc_auc
from adv_detect.jobs.activations import successful_attacks
from adv_detect.names import BOTH_CRITERIA, NO_CRITERION
from adv_detect.params import AdversarialGenerationParams
from adv_detect.pipelines.adaptive_attack.clean_scores import score_naturals
from adv_detect.pipelines.adaptive_attack.models import STRICT, USUAL
from adv_detect.sharding import ShardStore


def clean_cost(
    stored: StoredDetector,
    activations: ShardStore,
    representatives: Representatives,
    params: AdversarialGenerationParams,
) -> dict[str, float | int]:
    """Measure a detector on clean test images and on the ordinary attacks.

    Args:
        stored: The detector.
        activations: Activations of natural and attacked images.
        representatives: Class representatives.
        params: The ordinary attacks.

    Returns:
        ``n_clean``, realised ``fpr_01`` and ``fpr_05``, ``macro_auc`` over the training attacks of the detector's
        criteria, and ``macro_auc_confident`` over the confident forms; NaN where there are none.
    """
    clean = score_naturals(activations, "test", stored, representatives)["score"].to_numpy()
    trained = str(stored.facts["trained_criterion"])
    forms: dict[str, list[float]] = {"early": [], "confident": []}
    for name, attack in params.active.items():
        for criterion in attack.criteria if trained in (BOTH_CRITERIA, NO_CRITERION) else (trained,):
            scores = _attacked_scores(stored, activations, name, criterion)
            if len(scores) and (attack.train or attack.form == "confident"):
                labels = np.concatenate([np.zeros(len(clean), dtype=bool), np.ones(len(scores), dtype=bool)])
                forms[attack.form].append(roc_auc(np.concatenate([clean, scores]), labels))
    means = {form: float(np.mean(values)) if values else float("nan") for form, values in forms.items()}
    return {
        "n_clean": len(clean),
        "fpr_01": float((clean > stored.threshold(STRICT)).mean()),
        "fpr_05": float((clean > stored.threshold(USUAL)).mean()),
        "macro_auc": means["early"],
        "macro_auc_confident": means["confident"],
    }


def _attacked_scores(
    stored: StoredDetector, activations: ShardStore, attack: str, criterion: str
) -> NDArray[np.float32]:
    """Scores of the test images with which an ordinary attack succeeded."""
    found = successful_attacks(activations, split="test", attacks=(attack,), criteria=(criterion,))
    if found is None:
        return np.zeros(0, dtype=np.float32)
    scores: NDArray[np.float32] = score_activations(stored.detector, found).numpy()
    return scores


def with_costs(
    summary: pd.DataFrame, stored: Mapping[str, StoredDetector], cost: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """Say beside each figure what kind of detector it is of, and what that costs on clean images.

    Args:
        summary: A row per detector and attack.
        stored: The detectors by key.
        cost: Per detector what :func:`clean_cost` gives, and its key ``detector``.

    Returns:
        The table with the columns ``kind``, ``rounds`` of hardening, ``n_clean`` and ``clean_fpr_05``.
    """
    facts = pd.DataFrame(
        {
            "detector": row["detector"],
            "kind": stored[row["detector"]].params.kind,
            "rounds": len(stored[row["detector"]].facts.get("rounds", [])),
            "n_clean": row["n_clean"],
            "clean_fpr_05": row["fpr_05"],
        }
        for row in cost
    )
    return summary.merge(facts, on="detector", how="left")
