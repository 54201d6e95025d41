"""Nodes that tabulate detectors: validation figures, training curves, thresholds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from adv_detect.algorithms.detectors.stored import CLEAN_SCORES
from adv_detect.algorithms.representatives import Representatives
from adv_detect.algorithms.thresholds import thresholds_at_fpr
from adv_detect.jobs.detectors import CRITERIA, criteria_of, restore
from adv_detect.jobs.validation_scores import ValidationScores
from adv_detect.measures.detector_keys import rate_label
from adv_detect.names import BENIGN_FIGURE, NATURAL
from adv_detect.params import AdversarialGenerationParams, Criterion, EvaluationParams, RuntimeParams
from adv_detect.sharding import ShardStore
from adv_detect.sharding.pool import do_all

DESCRIBED = ("configuration", "trained_criterion", "trained_on", "seed")


def summarise_detectors(
    detectors: ShardStore,
    activations: ShardStore,
    representatives: Representatives,
    adversarial_generation: AdversarialGenerationParams,
    runtime: RuntimeParams,
) -> pd.DataFrame:
    """List the detectors with their configuration and validation figures.

    Args:
        detectors: The trained detectors.
        activations: Activations of natural and attacked images; those of the validation split are scored.
        representatives: Class representatives.
        adversarial_generation: Which attacks are for training.
        runtime: Number of processes; whether progress is shown.

    Returns:
        One row per detector: detector (key), configuration, kind, representative, distance, order, top_k, hidden,
        trained_criterion, trained_on, seed, epochs, validation_macro_auc (the attacks that it learned from; all where
        it learned from none), validation_macro_auc_all (all attacks for training, of both criteria),
        validation_benign_fpr_05 (worst share of false alarms under a benign change that some detector is trained
        against, at the threshold of 5%; NaN where there is none), forward_passes (per clean image).
    """
    attacks = {name: attack.criteria for name, attack in adversarial_generation.active.items() if attack.train}
    work = SummaryWork(detectors, activations, representatives, attacks)
    return pd.DataFrame(do_all(work, list(detectors), runtime, title="validation", unit="detectors"))


@dataclass(frozen=True)
class SummaryWork:
    """Describes one detector; the validation images are read from disk once.

    Attributes:
        detectors: The trained detectors.
        activations: Activations of natural and attacked images.
        representatives: Class representatives.
        attacks: Criteria of the attacks for training, by name.
    """

    detectors: ShardStore
    activations: ShardStore
    representatives: Representatives
    attacks: Mapping[str, tuple[Criterion, ...]]

    def __call__(self, key: str) -> dict[str, Any]:
        """Give the row of the detector of that key."""
        stored, validation = restore(self.detectors, key, self.representatives), self._validation
        scores, facts = validation.score(stored.detector), stored.facts
        every = {f"{name}/{criterion}" for name in self.attacks for criterion in CRITERIA}
        learned = {f"{name}/{one}" for name in facts["attacks"] for one in criteria_of(facts["trained_criterion"])}
        return {
            "detector": stored.key,
            **stored.params.shown,
            "top_k": stored.params.top_k,
            "hidden": stored.params.hidden,
            **{name: facts[name] for name in DESCRIBED},
            "validation_macro_auc": validation.macro_auc(scores, learned or every),
            "validation_macro_auc_all": validation.macro_auc(scores, every),
            BENIGN_FIGURE: validation.worst_false_alarms(stored.detector, scores[NATURAL], fpr=0.05),
            "epochs": len(facts["history"]),
            "forward_passes": float(facts.get("forward_passes", 1.0)),
        }

    @cached_property
    def _validation(self) -> ValidationScores:
        return ValidationScores(self.activations, self.attacks)


def collect_histories(detectors: ShardStore) -> pd.DataFrame:
    """Gather the training curves.

    Args:
        detectors: The trained detectors.

    Returns:
        One row per detector and epoch: detector, epoch, and the figures of the epoch (train_loss, validation_loss,
        validation_macro_auc, learning_rate of those that read trajectories).
    """
    rows = [
        {"detector": key, "epoch": epoch, **row}
        for key in detectors
        for epoch, row in enumerate(detectors.metadata(key)["history"], start=1)
    ]
    return pd.DataFrame(rows, columns=None if rows else ["detector", "epoch"])


def fix_thresholds(detectors: ShardStore, control_detectors: ShardStore, evaluation: EvaluationParams) -> pd.DataFrame:
    """Fix the threshold of every detector at every false-positive rate, on clean validation images.

    Args:
        detectors: The trained detectors, with their scores on clean validation images.
        control_detectors: The controls, likewise.
        evaluation: The false-positive rates.

    Returns:
        One row per detector and rate: detector, fpr, rate (as in the names of columns), threshold, n (clean images that
        it rests on).
    """
    rows = []
    stored = (one.only(CLEAN_SCORES).items() for one in (detectors, control_detectors))
    for key, content in itertools.chain.from_iterable(stored):
        scores = content.tensors[CLEAN_SCORES]
        for fpr, threshold in thresholds_at_fpr(scores, evaluation.fprs).items():
            rows.append(
                {"detector": key, "fpr": fpr, "rate": rate_label(fpr), "threshold": threshold, "n": len(scores)}
            )
    return pd.DataFrame(rows)
