"""Nodes that make activations and detectors, and choose the one to serve."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pandas as pd

from adv_detect.absent import Absent
from adv_detect.algorithms.detectors import parse_reference_name
from adv_detect.algorithms.detectors.registry import detector_reads, detector_source, needed_views
from adv_detect.algorithms.detectors.trajectory.registry import readout_kinds
from adv_detect.algorithms.representatives import Representatives, representatives_digest
from adv_detect.jobs.activation_plans import ActivationBlock, activation_plan, twin_that_is_read
from adv_detect.jobs.activations import read_fingerprint
from adv_detect.jobs.bands import stored_bands
from adv_detect.jobs.benign_changes import benign_blocks, chosen_changes
from adv_detect.jobs.controls import control_plan
from adv_detect.jobs.detector_fitting import DetectorWork
from adv_detect.jobs.detectors import (
    LEARNING_SPLITS,
    DetectorJob,
    attacks_of,
    best_detector,
    plan_jobs,
    restore,
)
from adv_detect.measures.detector_keys import SUMMARY_FIGURES
from adv_detect.names import EARLY, LEARNED_FROM_ALL, REFERENCE, WITHOUT
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import (
    AdversarialGenerationParams,
    DetectorTrainingParams,
    EvaluationParams,
    RuntimeParams,
    ServingParams,
)
from adv_detect.serving.bundle import ScoringBundle
from adv_detect.sharding import ShardPlan, ShardSpec, ShardStore, fingerprint

LOGGER = logging.getLogger(__name__)


def compute_activations(
    adversarials: ShardStore,
    network_weights: TargetNetwork,
    representatives: Representatives,
    twin: TargetNetwork | Absent,
    detector_training: DetectorTrainingParams,
    runtime: RuntimeParams,
    evaluation: EvaluationParams,
) -> ShardPlan:
    """Plan the activations of all stored images, and of benign changes that detectors are trained against.

    Args:
        adversarials: Attacked and natural images.
        network_weights: The network under attack.
        representatives: Class representatives, which judge attacks on deep features.
        twin: The second network.
        detector_training: The detectors, for what they read.
        runtime: Batch size, device, engine, seed of noise.
        evaluation: The benign changes.

    Returns:
        A plan with one shard per shard of images, and ``benign/<change>/<split>-<number>`` for training and validation.
    """
    blocks = {key: ActivationBlock(shard=key) for key in adversarials}
    changes = chosen_changes(evaluation, detector_training.asked_changes)
    blocks |= benign_blocks(adversarials, changes, seed=runtime.seed, splits=LEARNING_SPLITS)
    views = needed_views(detector_training.active, detector_training.active_views)
    second = twin_that_is_read(twin, detector_training.active)
    return activation_plan(
        adversarials, network_weights, representatives, blocks, runtime=runtime, views=views, twin=second
    )


def train_detectors(
    activations: ShardStore,
    representatives: Representatives,
    detector_training: DetectorTrainingParams,
    adversarial_generation: AdversarialGenerationParams,
    runtime: RuntimeParams,
) -> ShardPlan:
    """Plan one detector per configuration x criterion x training set x seed.

    Args:
        activations: Activations of natural and attacked images.
        representatives: Class representatives.
        detector_training: The configurations and how they are fitted.
        adversarial_generation: Which attacks are for training.
        runtime: Device, engine.

    Returns:
        A plan with a shard ``<configuration>/<criterion>/<trained_on>/<seed>`` per detector. Its fingerprint covers
        the shards that it learns from and nothing else.
    """
    of_classes, views = representatives_digest(representatives), detector_training.active_views
    work = DetectorWork(activations, representatives, detector_training.fit, runtime, views)
    read_of = cache(partial(read_fingerprint, activations))
    shards = tuple(
        ShardSpec(
            job.key,
            fingerprint(
                of_classes,
                detector_training.fit,
                repr(job),
                detector_source(job.params),
                _content(job.checkpoint),
                [(key, read_of(key, detector_reads(job.params))) for key in job.shards(activations)],
            ),
            job,
        )
        for job in _with_something_to_learn(_jobs(detector_training, adversarial_generation), activations)
    )
    return ShardPlan(work=work, shards=shards, runtime=runtime, description="detectors", one_thread=True)


def make_controls(
    detectors: ShardStore,
    detector_summary: pd.DataFrame,
    activations: ShardStore,
    representatives: Representatives,
    runtime: RuntimeParams,
) -> ShardPlan:
    """Plan the controls, which every detector must beat: the network's margin, and detectors with random weights.

    Args:
        detectors: The trained detectors.
        detector_summary: Their validation figures; the best that reads trajectories gives the untrained ones their
            form.
        activations: Activations of natural images.
        representatives: Class representatives.
        runtime: Engine, progress.

    Returns:
        A plan with the shards ``margin`` and, where a detector reads trajectories, ``untrained/<draw>``.
    """
    readers = detector_summary[detector_summary["kind"].isin(readout_kinds())]
    like = best_detector(readers if readers["trained_on"].isin(LEARNED_FROM_ALL).any() else detector_summary)
    return control_plan(detectors, like, activations, representatives, runtime)


def assemble_champion(
    detectors: ShardStore,
    detector_summary: pd.DataFrame,
    thresholds: pd.DataFrame,
    network_weights: TargetNetwork,
    representatives: Representatives,
    twin: TargetNetwork | Absent,
    activations: ShardStore,
    serving: ServingParams,
) -> ScoringBundle:
    """Bundle network, representatives and the best detector for serving.

    The best has nearly the highest validation macro-AUC over the training attacks of both criteria: a served detector
    does not know which it will meet. Of those it raises the fewest false alarms on benignly changed images
    (:func:`adv_detect.jobs.detectors.best_detector`). Test images play no part in the choice.

    Args:
        detectors: The trained detectors.
        detector_summary: Their validation figures.
        thresholds: Their thresholds.
        network_weights: The network under attack.
        representatives: Class representatives.
        twin: The second network, which is served where the best detector reads it.
        activations: Of natural images, whose distances to their class explain verdicts; those to train on and to
            validate on, which the representatives do not come from.
        serving: The false-positive rate of the verdict, name and limits of the served model.

    Returns:
        Everything that scoring an image takes.
    """
    best = best_detector(detector_summary)
    figures = detector_summary.set_index("detector")[[*SUMMARY_FIGURES]]
    fixed = thresholds[thresholds["detector"] == best]
    stored = restore(detectors, best, representatives)
    return ScoringBundle(
        network=network_weights,
        representatives=representatives,
        stored=stored,
        twin=twin_that_is_read(twin, {best: stored.params}),
        bands=stored_bands(activations, representatives),
        metadata=serving.model_dump()
        | {"fprs": [float(fpr) for fpr in fixed["fpr"]]}
        | {name: float(figures[name][best]) for name in SUMMARY_FIGURES},
    )


def _jobs(params: DetectorTrainingParams, attacks: AdversarialGenerationParams) -> list[DetectorJob]:
    learned = {name: attack.criteria for name, attack in attacks.active.items() if attack.train}
    trained = plan_jobs(
        params.active,
        learned,
        criteria=params.criteria,
        seeds=params.seeds,
        leave_one_out=params.leave_one_out,
        forms={name: attack.form for name, attack in attacks.active.items()},
    )
    published = []
    for name, path in params.reference_checkpoints.items():
        one, criterion = parse_reference_name(path)
        fitting = attacks_of(attacks.trained((EARLY,)), criterion)
        published.append(DetectorJob(name, one, criterion, REFERENCE, fitting, 0, checkpoint=path))
    return [*trained, *published]


def _with_something_to_learn(jobs: list[DetectorJob], activations: ShardStore) -> Iterator[DetectorJob]:
    """Pass over detectors without one attack where the other attacks had no success to learn from or to choose by."""
    for job in jobs:
        left_out = job.trained_on.startswith(WITHOUT)
        if not left_out or all(_succeeded(job, split, activations) for split in LEARNING_SPLITS):
            yield job
        else:
            LOGGER.warning(
                "detectors: %s is left out, for its attacks %s had no success", job.key, ", ".join(job.attacks)
            )


def _succeeded(job: DetectorJob, split: str, activations: ShardStore) -> bool:
    """Return whether an attack that a detector is trained on had a success in a split."""
    attacked = job.attacked(activations, split).only("success")
    return any(bool(content.tensors["success"].any()) for content in attacked.values())


def _content(checkpoint: str | None) -> str | None:
    """Digest of a checkpoint file: another file of the same name is another detector."""
    return None if checkpoint is None else fingerprint(Path(checkpoint).read_bytes())
