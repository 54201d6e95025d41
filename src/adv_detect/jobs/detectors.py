"""Detectors: those to train, on what each learns, and those that are stored."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from adv_detect.algorithms.detectors import (
    LearnsFrom,
    StoredDetector,
    learns_from,
)
from adv_detect.algorithms.detectors.stored import stored_views
from adv_detect.algorithms.representatives import Representatives
from adv_detect.names import (
    BENIGN,
    BENIGN_FIGURE,
    BOTH_CRITERIA,
    EARLY,
    LEARNED_FROM_ALL,
    NO_CRITERION,
    TRAINED_ON_ALL,
    WITHOUT,
    DetectorKey,
)
from adv_detect.params import (
    AttackForm,
    Criterion,
    DetectorParams,
    ImageChangeParams,
    Split,
)
from adv_detect.sharding import ShardStore

CRITERIA: tuple[Criterion, ...] = ("targeted", "untargeted")
AS_GOOD = 0.002
"""Loss of validation macro-AUC that fewer false alarms on benignly changed images may cost."""
LEARNING_SPLITS: tuple[Split, ...] = ("train", "validation")


@dataclass(frozen=True)
class DetectorJob:
    """One detector to train, or one published checkpoint to take over.

    Attributes:
        name: Name of the configuration.
        params: The configuration.
        criterion: ``targeted``, ``untargeted`` or ``both``; ``none`` for a detector that learns from no attack.
        trained_on: ``all``, ``without-<attack>``, ``reference``, ``clean`` or ``nothing``.
        attacks: Names of the attacks in the training set.
        seed: Seed of initial weights and batches.
        checkpoint: File of a published detector; None trains one.
    """

    name: str
    params: DetectorParams
    criterion: str
    trained_on: str
    attacks: tuple[str, ...]
    seed: int
    checkpoint: str | None = None

    @property
    def key(self) -> str:
        """``<name>/<criterion>/<trained_on>/<seed>``."""
        return DetectorKey(self.name, self.criterion, self.trained_on, self.seed).text

    @property
    def criteria(self) -> tuple[str, ...]:
        """Criteria of the attacks in the training set."""
        return criteria_of(self.criterion)

    def shards(self, activations: ShardStore) -> list[str]:
        """Keys of the shards that the detector learns from, or chooses by."""
        return [
            key
            for split in LEARNING_SPLITS
            for part in (
                activations.select(split=split, natural=True),
                changed_naturals(activations, split, self.params.train_against),
                self.attacked(activations, split),
            )
            for key in part
        ]

    def attacked(self, activations: ShardStore, split: str) -> ShardStore:
        """Shards of the attacks in the training set."""
        return activations.select(split=split, attack=self.attacks, criterion=self.criteria)


def plan_jobs(
    configurations: Mapping[str, DetectorParams],
    attacks: Mapping[str, tuple[Criterion, ...]],
    *,
    criteria: Collection[str],
    seeds: Collection[int],
    leave_one_out: Collection[str] = (),
    forms: Mapping[str, AttackForm] | None = None,
) -> Iterator[DetectorJob]:
    """List the detectors to train: configuration x criterion x training set x seed.

    Args:
        configurations: What to train, by name.
        attacks: Criteria of the attacks for training, by name.
        criteria: ``targeted``, ``untargeted``, ``both``.
        seeds: Of weights and batches.
        leave_one_out: Configurations that are trained again without each attack, with the first seed.
        forms: Form of each attack, by name; early where it is not given.

    Yields:
        The jobs; a detector that learns from no attack has one per seed, one that learns nothing has one.
    """
    seeds = tuple(seeds)
    for seed in seeds:
        for criterion in criteria:
            for name, one in configurations.items():
                if learns_from(one) is not LearnsFrom.ATTACKS:
                    continue
                fitting = tuple(
                    attack
                    for attack in attacks_of(attacks, criterion)
                    if (forms or {}).get(attack, EARLY) in one.train_forms
                )
                yield DetectorJob(name, one, criterion, TRAINED_ON_ALL, fitting, seed)
                if name in leave_one_out and seed == seeds[0] and criterion != BOTH_CRITERIA:
                    yield from _left_out(name, one, criterion, fitting, seed)
        for name, one in configurations.items():
            learns = learns_from(one)
            if learns is LearnsFrom.CLEAN or (learns is LearnsFrom.NOTHING and seed == seeds[0]):
                yield DetectorJob(name, one, NO_CRITERION, learns.value, (), seed)


def changed_naturals(activations: ShardStore, split: str, changes: Collection[str]) -> ShardStore:
    """Select the shards of natural images of a split after some benign changes."""
    return activations.select(split=split, natural=True, variant=tuple(f"{BENIGN}/{name}" for name in changes))


def attacks_of(attacks: Mapping[str, tuple[Criterion, ...]], criterion: str) -> tuple[str, ...]:
    """Name the training attacks that exist with a criterion."""
    return tuple(name for name, criteria in attacks.items() if criterion in (*criteria, BOTH_CRITERIA))


def criteria_of(trained: str) -> tuple[str, ...]:
    """List the criteria of the attacks that a detector was trained on."""
    if trained == NO_CRITERION:
        return ()
    return CRITERIA if trained == BOTH_CRITERIA else (trained,)


def restore(detectors: ShardStore, key: str, representatives: Representatives) -> StoredDetector:
    """Read one detector from its store."""
    content = detectors[key]
    return StoredDetector.restore(key, content.metadata, content.tensors, representatives)


def restore_all(detectors: ShardStore, representatives: Representatives) -> list[StoredDetector]:
    """Read all detectors of a store."""
    return [restore(detectors, key, representatives) for key in detectors]


def configurations_of(detectors: ShardStore) -> dict[str, DetectorParams]:
    """Read the configurations of stored detectors, by their keys."""
    return {key: DetectorParams.model_validate(detectors.metadata(key)["params"]) for key in detectors}


def views_of(detectors: ShardStore) -> dict[str, ImageChangeParams]:
    """Gather the views that stored detectors read."""
    found: dict[str, ImageChangeParams] = {}
    for key in detectors:
        found |= stored_views(detectors.metadata(key))
    return found


def best_detector(summary: pd.DataFrame) -> str:
    """Choose the detector to serve, on validation images only.

    Args:
        summary: One row per detector.

    Returns:
        Key of the detector that learned from all it can learn from and whose worst share of false alarms under benign
        changes is lowest, among those whose ``validation_macro_auc_all`` is at most `AS_GOOD` below the highest; of
        equals the one of higher AUC, then the first by name. Where benign changes were not measured, the AUC decides.
    """
    candidates = summary[summary["trained_on"].isin(LEARNED_FROM_ALL)]
    columns = ["validation_macro_auc_all", "detector"]
    if BENIGN_FIGURE in candidates and candidates[BENIGN_FIGURE].notna().any():
        auc = candidates["validation_macro_auc_all"]
        candidates = candidates[~(auc < auc.max() - AS_GOOD)]
        columns = [BENIGN_FIGURE, *columns]
    ordered = candidates.sort_values(columns, ascending=[one != "validation_macro_auc_all" for one in columns])
    return str(ordered.iloc[0]["detector"])


def _left_out(
    name: str, params: DetectorParams, criterion: str, attacks: tuple[str, ...], seed: int
) -> Iterator[DetectorJob]:
    for left in attacks if len(attacks) > 1 else ():
        rest = tuple(attack for attack in attacks if attack != left)
        yield DetectorJob(name, params, criterion, f"{WITHOUT}{left}", rest, seed)
