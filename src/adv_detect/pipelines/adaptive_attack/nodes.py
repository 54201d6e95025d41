"""Nodes that attack network and detector together."""

from __future__ import annotations

import pandas as pd

from adv_detect.absent import Absent
from adv_detect.algorithms.attacks.adaptive.registry import adaptive_attack_source
from adv_detect.algorithms.representatives import Representatives
from adv_detect.images import ImageSet
from adv_detect.jobs.records import log_non_finite
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import AdaptiveAttackParams, DetectorTrainingParams, RuntimeParams
from adv_detect.pipelines.adaptive_attack.attacking import AttackSetting
from adv_detect.pipelines.adaptive_attack.conditions import check_adaptive, conditions, detector_keys
from adv_detect.pipelines.adaptive_attack.hardening import HardeningWork
from adv_detect.pipelines.adaptive_attack.plans import (
    attack_plan,
    fingerprint_of,
    shared_fingerprints,
    substitute_fingerprint,
)
from adv_detect.pipelines.adaptive_attack.substitute import Substitute
from adv_detect.sharding import ShardPlan, ShardSpec, ShardStore, fingerprint

RECORD_TENSORS = (
    "source_index",
    "label",
    "target",
    "predicted",
    "fooled",
    "evaded_fpr_01",
    "evaded_fpr_05",
    "evaded_reference",
    "detector_score",
    "l2",
    "linf",
    "gradient_evaluations",
    "zero_gradient_share",
    "first_success",
    "non_finite",
)
RECORD_FACTS = (
    "detector",
    "attack",
    "method",
    "role",
    "form",
    "classifier",
    "norm",
    "epsilon",
    "criterion",
    "threshold_fpr_01",
    "threshold_fpr_05",
    "rounds",
    "total_steps",
)


def gather_attack_setting(
    test_images: ImageSet,
    network_weights: TargetNetwork,
    representatives: Representatives,
    activations: ShardStore,
    twin: TargetNetwork | Absent,
    substitute_models: Substitute | Absent,
    runtime: RuntimeParams,
) -> AttackSetting:
    """Gather what all attacks share.

    Args:
        test_images: The source images of all splits.
        network_weights: The network under attack.
        representatives: Class representatives.
        activations: Activations of natural and attacked images.
        twin: The second network.
        substitute_models: The attacker's own network and detectors; absent where no attack is transferred.
        runtime: Seed, shard size, batch size, device, engine.

    Returns:
        The setting of all attacks.
    """
    substitute = None if isinstance(substitute_models, Absent) else substitute_models
    second = None if isinstance(twin, Absent) else twin
    return AttackSetting(test_images, network_weights, representatives, activations, substitute, runtime, second)


def attack_detectors(
    attack_setting: AttackSetting,
    detectors: ShardStore,
    detector_training: DetectorTrainingParams,
    adaptive_attack: AdaptiveAttackParams,
) -> ShardPlan:
    """Plan every configured adaptive attack on every configured detector.

    Args:
        attack_setting: Network, images and all else that is shared.
        detectors: The trained detectors.
        detector_training: The detector configurations.
        adaptive_attack: The attacks.

    Returns:
        A plan with the shards ``<detector>/<attack>/<norm>-<epsilon>/<criterion>/<number>``, the key of the detector
        written with dots.
    """
    check_adaptive(adaptive_attack, detector_training, attack_setting.network.spec.bounds)
    keys = detector_keys(adaptive_attack.detectors, adaptive_attack, detector_training)
    return attack_plan(attack_setting, detectors, keys, tuple(conditions(adaptive_attack)), adaptive_attack)


def harden_detectors(
    attack_setting: AttackSetting,
    detectors: ShardStore,
    detector_training: DetectorTrainingParams,
    adaptive_attack: AdaptiveAttackParams,
) -> ShardPlan:
    """Plan the adversarial training of detectors, on source images of the train and validation splits.

    Args:
        attack_setting: Network, images and all else that is shared.
        detectors: The trained detectors.
        detector_training: How detectors are fitted.
        adaptive_attack: The attacks, the rounds.

    Returns:
        A plan with a shard ``<key of the detector>/hardened-<rounds>`` per detector; none for 0 rounds.
    """
    hardening, setting = adaptive_attack.hardening, attack_setting
    chosen = tuple(conditions(adaptive_attack, hardening.attacks))
    work = HardeningWork(setting, detectors, chosen, hardening, detector_training.fit)
    keys = detector_keys(hardening.detectors, adaptive_attack, detector_training) if hardening.rounds else []
    shared = (
        shared_fingerprints(setting), setting.activations.digest, [condition.identity for condition in chosen],
        [adaptive_attack_source(condition.spec.attack) for condition in chosen],
        hardening.rounds, hardening.train_images, hardening.validation_images,
        detector_training.fit,
    )  # fmt: skip
    shards = tuple(
        ShardSpec(
            f"{key}/hardened-{hardening.rounds}",
            fingerprint(
                shared, fingerprint_of(detectors, key), substitute_fingerprint(setting, chosen, detectors, key)
            ),
            key,
        )
        for key in keys
    )
    return ShardPlan(
        work=work, shards=shards, runtime=setting.runtime, description="hardened detectors", one_thread=True
    )


def attack_hardened(
    attack_setting: AttackSetting, hardened_detectors: ShardStore, adaptive_attack: AdaptiveAttackParams
) -> ShardPlan:
    """Plan the attacks on the hardened detectors: anew, on test images, with full knowledge.

    Args:
        attack_setting: Network, images and all else that is shared.
        hardened_detectors: The detectors after adversarial training.
        adaptive_attack: The attacks.

    Returns:
        A plan as that of :func:`attack_detectors`.
    """
    chosen = tuple(conditions(adaptive_attack, adaptive_attack.hardening.test_attacks))
    return attack_plan(attack_setting, hardened_detectors, hardened_detectors, chosen, adaptive_attack)


def collect_adaptive_records(adaptive_adversarials: ShardStore, hardened_adversarials: ShardStore) -> pd.DataFrame:
    """Gather the record of each attacked image.

    Args:
        adaptive_adversarials: Attacks on the trained detectors.
        hardened_adversarials: Attacks on the hardened ones.

    Returns:
        One row per image, detector, attack, norm, epsilon and criterion: the columns that
        :mod:`adv_detect.measures.adaptive_records` reads, and method, role, form, classifier, both thresholds, rounds
        (of hardening), total_steps, first_success, evaded_reference, non_finite, label, target, predicted,
        source_index, store, shard, row.
    """
    frames = []
    for name, store in (("adaptive", adaptive_adversarials), ("hardened", hardened_adversarials)):
        for key, content in store.only(*RECORD_TENSORS).items():
            columns = {column: content.tensors[column].numpy() for column in RECORD_TENSORS}
            facts = {fact: content.metadata[fact] for fact in RECORD_FACTS}
            frame = pd.DataFrame({"source_id": content.metadata["source_ids"], **facts, **columns})
            frames.append(frame.assign(store=name, shard=key, row=range(len(frame))))
    records = pd.concat(frames, ignore_index=True)
    log_non_finite(records, "adaptive_records")
    return records.astype({"epsilon": float, "total_steps": float})
