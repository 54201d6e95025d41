"""Nodes that train detectors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from adv_detect.algorithms.detector_keys import REFERENCE
from adv_detect.algorithms.detectors import parse_reference_name
from adv_detect.algorithms.representatives import Representatives, representatives_digest
from adv_detect.algorithms.trajectories import trajectory_columns
from adv_detect.networks.target import TargetNetwork, target_digest
from adv_detect.params import (
    AdversarialGenerationParams,
    Criterion,
    DetectorParams,
    DetectorTrainingParams,
    EvaluationParams,
    RuntimeParams,
    ServingParams,
)
from adv_detect.pipelines.detector_training.work import DetectorJob, DetectorWork, TrajectoryBlock, TrajectoryWork
from adv_detect.serving.bundle import ScoringBundle, restore_detector
from adv_detect.sharding import ShardPlan, ShardSpec, ShardStore, fingerprint

ALL = "all"
BOTH = "both"
LEARNING_SPLITS = ("train", "validation")
LOGGER = logging.getLogger(__name__)


def compute_trajectories(
    adversarials: ShardStore,
    network_weights: TargetNetwork,
    representatives: Representatives,
    detector_training: DetectorTrainingParams,
    runtime: RuntimeParams,
) -> ShardPlan:
    """Plan the trajectories of all stored images, for every representative and distance that a detector reads.

    Args:
        adversarials: Attacked and natural images.
        network_weights: The network under attack.
        representatives: Class representatives.
        detector_training: The detector configurations.
        runtime: Batch size, device, engine.

    Returns:
        A plan with one shard per shard of images.
    """
    blocks = {key: TrajectoryBlock(shard=key) for key in adversarials.keys()}  # noqa: SIM118 - a store is no dictionary
    columns = trajectory_columns(read_by_detectors(detector_training))
    return trajectory_plan(adversarials, network_weights, representatives, blocks, columns=columns, runtime=runtime)


def trajectory_plan(
    adversarials: ShardStore,
    network: TargetNetwork,
    representatives: Representatives,
    blocks: dict[str, TrajectoryBlock],
    *,
    columns: tuple[str, ...],
    runtime: RuntimeParams,
) -> ShardPlan:
    """Plan the trajectories of some shards of images.

    Args:
        adversarials: Attacked and natural images.
        network: The network under attack.
        representatives: Class representatives.
        blocks: What to look at, by the key of the shard to make.
        columns: Names such as ``medoid.cosine``.
        runtime: Batch size, device, engine.

    Returns:
        The plan.
    """
    work = TrajectoryWork(adversarials, network, representatives, columns, runtime)
    made_from = (target_digest(network), representatives_digest(representatives), columns)
    marks = adversarials.fingerprints()
    shards = tuple(
        ShardSpec(
            key,
            fingerprint(made_from, marks[block.shard], block.variant, block.norm, block.seed),
            replace(block, made_from=marks[block.shard]),
        )
        for key, block in blocks.items()
    )
    return ShardPlan(work=work, shards=shards, runtime=runtime, description="trajectories")


def train_detectors(
    trajectories: ShardStore,
    detector_training: DetectorTrainingParams,
    adversarial_generation: AdversarialGenerationParams,
    evaluation: EvaluationParams,
    runtime: RuntimeParams,
) -> ShardPlan:
    """Plan one detector per configuration x criterion x training set x seed.

    Args:
        trajectories: Trajectories of natural and attacked images.
        detector_training: The configurations and how they are fitted.
        adversarial_generation: Which attacks are for training.
        evaluation: The false-positive rates whose thresholds are fixed.
        runtime: Device, engine.

    Returns:
        A plan with a shard ``<configuration>/<criterion>/<trained_on>/<seed>`` per detector.
    """
    attacks = {name: attack.criteria for name, attack in adversarial_generation.active.items() if attack.train}
    digest = trajectories.digest
    work = DetectorWork(trajectories, detector_training.fit, tuple(attacks), evaluation.fprs, runtime, digest)
    shards = tuple(
        ShardSpec(
            job.key,
            fingerprint(digest, detector_training.fit, evaluation.fprs, attacks, repr(job), _content(job.checkpoint)),
            job,
        )
        for job in _with_something_to_learn(_jobs(detector_training, attacks), trajectories)
    )
    return ShardPlan(work=work, shards=shards, runtime=runtime, description="detectors")


def summarise_detectors(detectors: ShardStore) -> pd.DataFrame:
    """List the detectors with what is known of them before they are tested.

    Args:
        detectors: The trained detectors.

    Returns:
        One row per detector: detector (key), configuration, kind, representative, distance, order, top_k,
        trained_criterion, trained_on, seed, epochs, validation_macro_auc (own criterion),
        validation_macro_auc_all (attacks of both criteria).
    """
    rows = []
    for key in detectors.keys():  # noqa: SIM118 - a store is no dictionary
        about = detectors.metadata(key)
        wanted = (
            "configuration",
            "trained_criterion",
            "trained_on",
            "seed",
            "validation_macro_auc",
            "validation_macro_auc_all",
        )
        rows.append(
            {
                "detector": key,
                **about["params"],
                **{name: about[name] for name in wanted},
                "epochs": len(about["history"]),
            }
        )
    return pd.DataFrame(rows)


def collect_histories(detectors: ShardStore) -> pd.DataFrame:
    """Gather the training curves.

    Args:
        detectors: The trained detectors.

    Returns:
        One row per detector and epoch: detector, epoch, train_loss, validation_loss, validation_macro_auc,
        learning_rate.
    """
    rows = [
        {"detector": key, "epoch": epoch, **row}
        for key in detectors.keys()  # noqa: SIM118 - a store is no dictionary
        for epoch, row in enumerate(detectors.metadata(key)["history"], start=1)
    ]
    return pd.DataFrame(rows)


def assemble_champion(
    detectors: ShardStore,
    detector_summary: pd.DataFrame,
    network_weights: TargetNetwork,
    representatives: Representatives,
    serving: ServingParams,
) -> ScoringBundle:
    """Bundle network, representatives and the best detector for serving.

    The best is the one with the highest validation macro-AUC over the training attacks of both criteria: a served
    detector does not know which it will meet. Test images play no part in the choice.

    Args:
        detectors: The trained detectors.
        detector_summary: Their validation figures.
        network_weights: The network under attack.
        representatives: Class representatives.
        serving: The false-positive rate of the verdict.

    Returns:
        Everything that scoring an image takes.
    """
    best = best_detector(detector_summary)
    content = detectors.read(best)
    return ScoringBundle(
        network=network_weights,
        representatives=representatives,
        detector=restore_detector(content.metadata, content.tensors),
        about=content.metadata | {"detector": best, "fpr": serving.fpr, "name": serving.name},
    )


def best_detector(summary: pd.DataFrame) -> str:
    """Choose the detector to serve, on validation images only.

    Args:
        summary: One row per detector.

    Returns:
        Key of the detector with the highest ``validation_macro_auc_all`` among those trained on all attacks; of
        equals the first by name.
    """
    candidates = summary[summary["trained_on"] == ALL]
    ordered = candidates.sort_values(["validation_macro_auc_all", "detector"], ascending=[False, True])
    return str(ordered.iloc[0]["detector"])


def read_by_detectors(params: DetectorTrainingParams) -> list[DetectorParams]:
    """List what is read by the configured detectors and by published ones that are taken over."""
    published = [parse_reference_name(path)[0] for path in params.reference_checkpoints.values()]
    return [*params.active.values(), *published]


def _jobs(params: DetectorTrainingParams, attacks: dict[str, tuple[Criterion, ...]]) -> Iterator[DetectorJob]:
    for seed in params.seeds:
        for criterion in params.criteria:
            fitting = _attacks_of(attacks, criterion)
            for name, one in params.active.items():
                yield DetectorJob(name, one, criterion, ALL, fitting, seed)
                if name in params.leave_one_out and seed == params.seeds[0] and criterion != BOTH:
                    yield from _left_out(name, one, criterion, fitting, seed)
    for name, path in params.reference_checkpoints.items():
        one, criterion = parse_reference_name(path)
        yield DetectorJob(name, one, criterion, REFERENCE, _attacks_of(attacks, criterion), 0, checkpoint=path)


def _with_something_to_learn(jobs: Iterator[DetectorJob], trajectories: ShardStore) -> Iterator[DetectorJob]:
    """Pass over detectors without one attack where the other attacks had no success to learn from or to choose by."""
    for job in jobs:
        if job.trained_on in (ALL, REFERENCE) or all(_succeeded(job, split, trajectories) for split in LEARNING_SPLITS):
            yield job
        else:
            LOGGER.warning(
                "detectors: %s is left out, for its attacks %s had no success", job.key, ", ".join(job.attacks)
            )


def _succeeded(job: DetectorJob, split: str, trajectories: ShardStore) -> bool:
    """Whether an attack that a detector is trained on had a success in a split."""
    prefixes = [f"{attack}/{criterion}/{split}-" for attack in job.attacks for criterion in job.criteria]
    keys = (key for prefix in prefixes for key in trajectories.keys(prefix))
    return any(bool(trajectories.read(key, names=("success",)).tensors["success"].any()) for key in keys)


def _attacks_of(attacks: dict[str, tuple[Criterion, ...]], criterion: str) -> tuple[str, ...]:
    """Names of the training attacks that exist with a criterion."""
    return tuple(name for name, criteria in attacks.items() if criterion in (*criteria, BOTH))


def _left_out(
    name: str, params: DetectorParams, criterion: str, attacks: tuple[str, ...], seed: int
) -> Iterator[DetectorJob]:
    for left in attacks if len(attacks) > 1 else ():
        rest = tuple(attack for attack in attacks if attack != left)
        yield DetectorJob(name, params, criterion, f"without-{left}", rest, seed)


def _content(checkpoint: str | None) -> str | None:
    """Digest of a checkpoint file: another file of the same name is another detector."""
    return None if checkpoint is None else fingerprint(Path(checkpoint).read_bytes())
