"""Detectors: which are trained on what, and the work of training one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from adv_detect.algorithms.detectors import (
    Activations,
    Detector,
    FitData,
    FitHistory,
    LearnsFrom,
    Reads,
    StoredDetector,
    TrajectoryDetector,
    build_detector,
    learns_from,
    load_reference_detector,
    score_activations,
    stored_tensors,
)
from adv_detect.algorithms.detectors.registry import needed_views
from adv_detect.algorithms.detectors.stored import stored_views
from adv_detect.algorithms.detectors.trajectory.training import macro_auc
from adv_detect.algorithms.device import resolve_device
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import DataError
from adv_detect.jobs.activations import natural_activations, read_activations, read_fingerprint, successful_attacks
from adv_detect.names import (
    BENIGN,
    BOTH_CRITERIA,
    EARLY,
    LEARNED_FROM_ALL,
    NATURAL,
    NO_CRITERION,
    TRAINED_ON_ALL,
    WITHOUT,
    DetectorKey,
    ShardKey,
)
from adv_detect.params import (
    AttackForm,
    Criterion,
    DetectorFitParams,
    DetectorParams,
    ImageChangeParams,
    RuntimeParams,
    Split,
)
from adv_detect.sharding import ShardContent, ShardStore

CRITERIA: tuple[Criterion, ...] = ("targeted", "untargeted")
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


@dataclass(frozen=True)
class DetectorWork:
    """Trains one detector and scores the clean validation images with it.

    Attributes:
        activations: Activations of natural and attacked images.
        representatives: Class representatives.
        fit: Settings of the optimisation.
        runtime: Device.
        views: The configured views; those that a detector reads are kept among its facts.
    """

    activations: ShardStore
    representatives: Representatives
    fit: DetectorFitParams
    runtime: RuntimeParams
    views: Mapping[str, ImageChangeParams] = field(default_factory=dict)

    def __call__(self, job: DetectorJob) -> ShardContent:
        """Make one shard: the state and the clean scores of the detector; facts and training curves as metadata."""
        clean = natural_activations(self.activations, "validation")
        detector, params, history = self._detector(job)
        views = needed_views({job.name: params}, self.views)
        facts: dict[str, Any] = {
            "configuration": job.name,
            "params": params.model_dump(mode="json"),
            "trained_criterion": job.criterion,
            "trained_on": job.trained_on,
            "attacks": list(job.attacks),
            "seed": job.seed,
            "history": history,
            "forward_passes": detector.forward_passes(clean),
            "learned_from": {
                key: read_fingerprint(self.activations, key, detector.reads) for key in job.shards(self.activations)
            },
        }
        if views:
            facts["views"] = {name: one.model_dump(mode="json") for name, one in views.items()}
        return ShardContent(tensors=stored_tensors(detector, score_activations(detector, clean)), metadata=facts)

    def _detector(self, job: DetectorJob) -> tuple[Detector, DetectorParams, FitHistory]:
        if job.checkpoint is not None:
            readout = load_reference_detector(job.checkpoint, layers=len(self.representatives.layers))
            params = job.params.model_copy(update={"hidden": readout.hidden, "kind": readout.kind})
            return TrajectoryDetector(self.representatives, params, readout), params, []
        detector = build_detector(job.params, self.representatives, seed=job.seed)
        history = train_detector(
            detector,
            self.activations,
            attacks=job.attacks,
            criteria=job.criteria,
            against=job.params.train_against,
            fit=self.fit,
            seed=job.seed,
            device=str(resolve_device(self.runtime.device)),
        )
        return detector, job.params, history


def train_detector(  # noqa: PLR0913
    detector: Detector,
    activations: ShardStore,
    *,
    attacks: Collection[str],
    criteria: Collection[str],
    against: Collection[str] = (),
    fit: DetectorFitParams,
    seed: int,
    device: str,
    further: Mapping[str, Activations | None] | None = None,
) -> FitHistory:
    """Fit a detector on the train split, chosen by the validation split; it ends on the CPU, in evaluation mode.

    Args:
        detector: Fresh.
        activations: Shards of natural and attacked images.
        attacks: Attacks to learn from.
        criteria: Their criteria.
        against: Benign changes whose images are learned as clean ones.
        fit: Settings of the optimisation.
        seed: Decides everything random.
        device: Where to train.
        further: Further successful attacks by split, in addition to those of the store.

    Returns:
        Training curves.

    Raises:
        DataError: There are no images to learn from.
    """
    learns = detector.learns_from
    if learns is LearnsFrom.NOTHING:
        detector.eval()
        return []
    attacked = dict.fromkeys(LEARNING_SPLITS)
    if learns is LearnsFrom.ATTACKS:
        attacked = {
            split: _joined(
                successful_attacks(activations, split=split, attacks=attacks, criteria=criteria),
                (further or {}).get(split),
                split,
                detector.reads,
            )
            for split in LEARNING_SPLITS
        }
    data = FitData(
        clean=_clean(activations, "train", against),
        attacked=attacked["train"],
        validation_clean=_clean(activations, "validation", against),
        validation_attacked=attacked["validation"],
        params=fit,
        device=device,
    )
    history = detector.fit_chosen(data, seed=seed)
    detector.cpu().eval()
    return history


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
        Key of the detector with the highest ``validation_macro_auc_all`` among those that learned from all they can
        learn from; of equals the first by name.
    """
    candidates = summary[summary["trained_on"].isin(LEARNED_FROM_ALL)]
    ordered = candidates.sort_values(["validation_macro_auc_all", "detector"], ascending=[False, True])
    return str(ordered.iloc[0]["detector"])


class ValidationScores:
    """Scores of the validation images, attack by attack, for one detector after the other.

    Attributes:
        clean: Activations of the natural images.
        attacked: Activations of the successes, by ``<attack>/<criterion>``.
    """

    def __init__(self, activations: ShardStore, attacks: Mapping[str, tuple[Criterion, ...]]) -> None:
        """Read what is scored, once for all detectors."""
        self.clean = natural_activations(activations, "validation")
        found = {
            f"{name}/{criterion}": successful_attacks(
                activations, split="validation", attacks=(name,), criteria=(criterion,)
            )
            for name, criteria in attacks.items()
            for criterion in criteria
        }
        self.attacked = {group: part for group, part in found.items() if part is not None and len(part)}

    def macro_auc(self, scores: Mapping[str, Tensor], groups: Collection[str]) -> float:
        """Average the AUC over some groups; NaN where none of them has a success.

        Args:
            scores: Scores by group, ``natural`` among them.
            groups: Groups ``<attack>/<criterion>`` that count.
        """
        chosen = [group for group in self.attacked if group in groups]
        if not chosen:
            return float("nan")
        names = [NATURAL] * len(self.clean) + [group for group in chosen for _ in range(len(self.attacked[group]))]
        values = np.concatenate([scores[group].numpy() for group in (NATURAL, *chosen)])
        return macro_auc(values, names)  # type: ignore[arg-type]

    def score(self, detector: Detector) -> dict[str, Tensor]:
        """Score all groups with a detector."""
        return {NATURAL: score_activations(detector, self.clean)} | {
            group: score_activations(detector, part) for group, part in self.attacked.items()
        }


def _clean(activations: ShardStore, split: str, against: Collection[str]) -> Activations:
    """Read the natural images of a split and, after them, those that benign changes were made to."""
    natural = natural_activations(activations, split)
    changed = changed_naturals(activations, split, against)
    if not against:
        return natural
    parts = (read_activations(changed[key], ShardKey.parse(key).variant) for key in changed)
    return Activations.concatenate([natural, *parts])


def _joined(own: Activations | None, further: Activations | None, split: str, reads: Reads) -> Activations:
    parts = [part for part in (own, further) if part is not None]
    if not parts or not sum(map(len, parts)):
        raise DataError(
            f"detector_training: expected successful attacks of the {split} split to learn from, got none; use more "
            "images, another split or an attack that succeeds"
        )
    read = [part.keep(views=reads.views, twin=reads.twin) for part in parts]  # further ones hold what is read alone
    return Activations.concatenate(read)


def _left_out(
    name: str, params: DetectorParams, criterion: str, attacks: tuple[str, ...], seed: int
) -> Iterator[DetectorJob]:
    for left in attacks if len(attacks) > 1 else ():
        rest = tuple(attack for attack in attacks if attack != left)
        yield DetectorJob(name, params, criterion, f"{WITHOUT}{left}", rest, seed)
