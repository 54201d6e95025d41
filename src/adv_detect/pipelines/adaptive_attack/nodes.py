"""Nodes that attack network and detector together."""

from __future__ import annotations

import pandas as pd

from adv_detect.algorithms.attacks.adaptive.registry import adaptive_attack_source
from adv_detect.algorithms.attacks.registry import attack_source
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError
from adv_detect.images import ImageSet, image_set_identity
from adv_detect.jobs.records import log_non_finite
from adv_detect.networks.registry import network_source
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import (
    AdaptiveAttackParams,
    AdversarialGenerationParams,
    AttackParams,
    DetectorTrainingParams,
    NetworkParams,
    RepresentativesParams,
    RuntimeParams,
    Split,
    TargetTrainingParams,
)
from adv_detect.pipelines.adaptive_attack.attacking import Scene
from adv_detect.pipelines.adaptive_attack.conditions import (
    check_adaptive,
    conditions,
    detector_keys,
)
from adv_detect.pipelines.adaptive_attack.hardening import HardeningWork
from adv_detect.pipelines.adaptive_attack.plans import attack_plan, mark_of, shared_marks, substitute_mark
from adv_detect.pipelines.adaptive_attack.substitute import KEY, LEARNING_SPLITS, SubstituteRecipe, SubstituteWork
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec, ShardStore, fingerprint

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
)
SEED_STEP = 1
"""Added to the seed of the run for everything that the attacker trains."""


def describe_substitute(
    network: NetworkParams,
    target_training: TargetTrainingParams,
    representatives: RepresentativesParams,
    adversarial_generation: AdversarialGenerationParams,
    detector_training: DetectorTrainingParams,
    adaptive_attack: AdaptiveAttackParams,
    runtime: RuntimeParams,
) -> tuple[SubstituteRecipe, ...]:
    """Say how the attacker trains a network and detectors of his own.

    Args:
        network: The architecture.
        target_training: How the victim was trained; the epochs are the substitute's.
        representatives: Shrinkage and memory.
        adversarial_generation: The ordinary attacks.
        detector_training: The detector configurations.
        adaptive_attack: The substitute.
        runtime: Seed, device, batch size.

    Returns:
        The recipe, with another seed than the victim's; none where no attack is transferred.
    """
    check_adaptive(adaptive_attack, detector_training, network.bounds)
    substitute = adaptive_attack.substitute
    if not any(spec.role == "transfer" for spec in adaptive_attack.active.values()):
        return ()
    names = sorted({*adaptive_attack.detectors, *adaptive_attack.hardening.detectors})
    recipe = SubstituteRecipe(
        detectors={
            key.rsplit("/", 2)[0]: detector_training.active[key.split("/")[0]]
            for key in detector_keys(tuple(names), adaptive_attack, detector_training)
        },
        attacks=_substitute_attacks(adversarial_generation, substitute.attacks),
        network=substitute.network or network.model_copy(update={"checkpoint": None}),
        training=target_training.model_copy(update={"epochs": substitute.epochs, "head_only": False}),
        representatives=representatives,
        fit=detector_training.fit,
        seed=runtime.seed + SEED_STEP,
        max_images=substitute.max_images,
    )
    return (recipe,)


def train_substitute(
    train_images: ImageSet,
    test_images: ImageSet,
    source_splits: pd.DataFrame,
    substitute_recipe: tuple[SubstituteRecipe, ...],
    runtime: RuntimeParams,
) -> ShardPlan:
    """Plan the attacker's own network and detectors, one shard; none where no attack is transferred.

    Args:
        train_images: Images that the network is trained on.
        test_images: The source images.
        source_splits: The split of each source image; images of the test split are not used.
        substitute_recipe: How everything is trained; empty for nothing.
        runtime: Device, batch size.

    Returns:
        The plan.
    """
    if not substitute_recipe:
        return ShardPlan(work=_never, shards=(), runtime=runtime, description="substitute")
    (recipe,) = substitute_recipe
    limit = recipe.max_images
    members = {split: _members(source_splits, split)[:limit] for split in LEARNING_SPLITS}
    work = SubstituteWork(train_images, test_images, members, recipe, runtime)
    sources = [network_source(recipe.network.name), [attack_source(*one) for one in recipe.attacks.items()]]
    made_from = fingerprint(recipe, sources, members, image_set_identity(train_images), image_set_identity(test_images))
    return ShardPlan(work=work, shards=(ShardSpec(KEY, made_from, KEY),), runtime=runtime, description="substitute")


def set_scene(
    test_images: ImageSet,
    network_weights: TargetNetwork,
    representatives: Representatives,
    activations: ShardStore,
    substitute: ShardStore,
    runtime: RuntimeParams,
) -> Scene:
    """Gather what all attacks share.

    Args:
        test_images: The source images of all splits.
        network_weights: The network under attack.
        representatives: Class representatives.
        activations: Activations of natural and attacked images.
        substitute: The attacker's own network and detectors.
        runtime: Seed, shard size, batch size, device, engine.

    Returns:
        The scene.
    """
    return Scene(test_images, network_weights, representatives, activations, substitute, runtime)


def attack_detectors(
    adaptive_scene: Scene,
    detectors: ShardStore,
    detector_training: DetectorTrainingParams,
    adaptive_attack: AdaptiveAttackParams,
) -> ShardPlan:
    """Plan every configured adaptive attack on every configured detector.

    Args:
        adaptive_scene: Network, images and all else that is shared.
        detectors: The trained detectors.
        detector_training: The detector configurations.
        adaptive_attack: The attacks.

    Returns:
        A plan with the shards ``<detector>/<attack>/<norm>-<epsilon>/<criterion>/<number>``, the key of the detector
        written with dots.
    """
    check_adaptive(adaptive_attack, detector_training, adaptive_scene.network.spec.bounds)
    keys = detector_keys(adaptive_attack.detectors, adaptive_attack, detector_training)
    return attack_plan(adaptive_scene, detectors, keys, tuple(conditions(adaptive_attack)), adaptive_attack)


def harden_detectors(
    adaptive_scene: Scene,
    detectors: ShardStore,
    detector_training: DetectorTrainingParams,
    adaptive_attack: AdaptiveAttackParams,
) -> ShardPlan:
    """Plan the adversarial training of detectors, on source images of the train and validation splits.

    Args:
        adaptive_scene: Network, images and all else that is shared.
        detectors: The trained detectors.
        detector_training: How detectors are fitted.
        adaptive_attack: The attacks, the rounds.

    Returns:
        A plan with a shard ``<key of the detector>/hardened-<rounds>`` per detector; none for 0 rounds.
    """
    hardening, scene = adaptive_attack.hardening, adaptive_scene
    chosen = tuple(conditions(adaptive_attack, hardening.attacks))
    work = HardeningWork(scene, detectors, chosen, hardening, detector_training.fit)
    keys = detector_keys(hardening.detectors, adaptive_attack, detector_training) if hardening.rounds else []
    shared = (
        shared_marks(scene), scene.activations.digest, chosen,
        [adaptive_attack_source(condition.spec.attack) for condition in chosen],
        hardening.rounds, hardening.train_images, hardening.validation_images,
        detector_training.fit, substitute_mark(scene, chosen),
    )  # fmt: skip
    shards = tuple(
        ShardSpec(f"{key}/hardened-{hardening.rounds}", fingerprint(shared, mark_of(detectors, key)), key)
        for key in keys
    )
    return ShardPlan(work=work, shards=shards, runtime=scene.runtime, description="hardened detectors")


def attack_hardened(
    adaptive_scene: Scene, hardened_detectors: ShardStore, adaptive_attack: AdaptiveAttackParams
) -> ShardPlan:
    """Plan the attacks on the hardened detectors: anew, on test images, with full knowledge.

    Args:
        adaptive_scene: Network, images and all else that is shared.
        hardened_detectors: The detectors after adversarial training.
        adaptive_attack: The attacks.

    Returns:
        A plan as that of :func:`attack_detectors`.
    """
    chosen = tuple(conditions(adaptive_attack, adaptive_attack.hardening.test_attacks))
    return attack_plan(adaptive_scene, hardened_detectors, hardened_detectors.keys(), chosen, adaptive_attack)


def collect_adaptive_records(adaptive_adversarials: ShardStore, hardened_adversarials: ShardStore) -> pd.DataFrame:
    """Gather what is known of each attacked image.

    Args:
        adaptive_adversarials: Attacks on the trained detectors.
        hardened_adversarials: Attacks on the hardened ones.

    Returns:
        One row per image, detector, attack, norm, epsilon and criterion: the columns that
        :mod:`adv_detect.algorithms.adaptive_metrics` reads, and method, role, form, classifier, both thresholds,
        rounds (of hardening), evaded_reference, non_finite, label, target, predicted, source_index, store, shard, row.
    """
    frames = []
    for name, store in (("adaptive", adaptive_adversarials), ("hardened", hardened_adversarials)):
        for key in store.keys():  # noqa: SIM118 - a store is no dictionary
            content = store.read(key, names=tuple(RECORD_TENSORS))
            columns = {column: content.tensors[column].numpy() for column in RECORD_TENSORS}
            about = {fact: content.metadata[fact] for fact in RECORD_FACTS}
            frame = pd.DataFrame({"source_id": content.metadata["source_ids"], **about, **columns})
            frames.append(frame.assign(store=name, shard=key, row=range(len(frame))))
    records = pd.concat(frames, ignore_index=True)
    log_non_finite(records, "adaptive_records")
    return records.astype({"epsilon": float})


def _members(source_splits: pd.DataFrame, split: Split) -> tuple[int, ...]:
    """Source indices of a split, drawn over all classes."""
    rows = source_splits.loc[source_splits["split"] == split, "source_index"]
    return tuple(int(index) for index in rows.sample(frac=1.0, random_state=0))


def _substitute_attacks(params: AdversarialGenerationParams, names: tuple[str, ...]) -> dict[str, AttackParams]:
    found = {name: params.active[name] for name in names if name in params.active}
    if not found:
        raise ConfigurationError(
            f"adaptive_attack.substitute.attacks: expected names of {sorted(params.active)}, got {list(names)}"
        )
    return found


def _never(_: object) -> ShardContent:
    raise AssertionError("a plan without shards makes none")
