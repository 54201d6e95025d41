"""One adaptive attack on some images of one detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from adv_detect.algorithms.attacks.adaptive import (
    AdaptiveResult,
    AdaptiveTask,
    check_budget,
    run_adaptive_attack,
    run_transfer_attack,
)
from adv_detect.algorithms.attacks.targets import draw_targets
from adv_detect.algorithms.detectors import StoredDetector
from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.algorithms.device import resolve_device
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.images import ImageSet, load_images
from adv_detect.jobs.joint_models import join
from adv_detect.networks.frozen import working_form
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import RuntimeParams
from adv_detect.pipelines.adaptive_attack.conditions import Condition, threshold_of
from adv_detect.pipelines.adaptive_attack.gate_models import GateModel, clean_templates, no_twin
from adv_detect.pipelines.adaptive_attack.guides import with_guide
from adv_detect.pipelines.adaptive_attack.models import USUAL, FeatureModel
from adv_detect.pipelines.adaptive_attack.substitute import Substitute, restore_substitute
from adv_detect.sharding import ShardStore

JointModel = DetectionModel | FeatureModel | GateModel


@dataclass(frozen=True)
class AttackSetting:
    """Network, images and settings that all attacks of a run share; picklable.

    Attributes:
        images: The source images.
        network: The network under attack.
        representatives: Its class representatives.
        activations: Stored activations; clean ones of the train split guide attacks.
        substitute: The attacker's own network and detectors; None where no attack is transferred.
        runtime: Seed, device, batch size.
        twin: The second network; None where there is none.
    """

    images: ImageSet
    network: TargetNetwork
    representatives: Representatives
    activations: ShardStore
    substitute: Substitute | None
    runtime: RuntimeParams
    twin: TargetNetwork | None = None


@dataclass(frozen=True)
class Attacked:
    """An outcome with what it was made from.

    Attributes:
        task: The clean images and the rules.
        result: The judged outcome.
        model: The model that judged.
    """

    task: AdaptiveTask
    result: AdaptiveResult
    model: JointModel


def attack_images(
    setting: AttackSetting,
    stored: StoredDetector,
    condition: Condition,
    indices: tuple[int, ...],
    *,
    surrogate: StoredDetector | None = None,
) -> Attacked:
    """Attack images that the network classifies correctly and the detector passes.

    Args:
        setting: Network, images and all else that is shared.
        stored: The detector.
        condition: Attack, budget, criterion.
        indices: Source indices.
        surrogate: Detector of the same network that the attack is made on, in the place of the attacked one.

    Returns:
        The outcome, on the device of the run.

    Raises:
        ConfigurationError: The attack cannot be run so.
        AttackError: It returned what cannot be.
    """
    device = resolve_device(setting.runtime.device)
    model = _model(setting, stored, condition, device)
    task = _task(setting, stored, condition, indices, device)
    task = with_guide(task, setting, stored, condition=condition, model=model)
    attack = condition.build(setting.network.spec.bounds)
    batch_size = condition.spec.batch_size or setting.runtime.batch_size
    if condition.spec.role == "transfer":
        own, threshold = _stand_in(setting, stored, surrogate, device)
        result = run_transfer_attack(attack, own, model, task, substitute_threshold=threshold, batch_size=batch_size)
    else:
        result = run_adaptive_attack(attack, model, task, batch_size=batch_size)
    check_budget(result, task)
    return Attacked(task, result, model)


def _model(setting: AttackSetting, stored: StoredDetector, condition: Condition, device: torch.device) -> JointModel:
    network = working_form(setting.network.freeze(), device)
    joint = join(stored, network, device, twin=setting.twin)
    if condition.kind.guide == "templates":
        twin = working_form(asked_twin(setting.twin, condition.name).freeze(), device)
        return GateModel(joint, twin, clean_templates(setting, network, twin)).eval().requires_grad_(False)
    nearest = condition.spec.classifier == "nearest_medoid"
    if condition.kind.guide != "medoids" and not nearest:
        return joint
    return FeatureModel(joint, setting.representatives.medoids[-1].to(device), nearest=nearest).eval()


def asked_twin(twin: TargetNetwork | None, name: str) -> TargetNetwork:
    """Return the twin for an attack on a gate that asks it.

    Args:
        twin: The second network; None where there is none.
        name: Name of the attack, for the error.

    Returns:
        The twin.

    Raises:
        ConfigurationError: There is none.
    """
    if twin is None:
        raise ConfigurationError(no_twin(name))
    return twin


def _task(
    setting: AttackSetting, stored: StoredDetector, condition: Condition, indices: tuple[int, ...], device: torch.device
) -> AdaptiveTask:
    numbers = torch.tensor(indices, dtype=torch.int64)
    labels = setting.images.labels[numbers]
    spec = setting.network.spec
    targets = None
    if condition.criterion == "targeted":
        drawn = draw_targets(labels, len(spec.class_names), seed=setting.runtime.seed, source_indices=numbers)
        targets = drawn.to(device)
    return AdaptiveTask(
        images=load_images(setting.images, indices, spec.bounds).to(device),
        labels=labels.to(device),
        targets=targets,
        threshold=threshold_of(condition.spec, stored) if condition.asks_detector else float("inf"),
        bounds=spec.bounds,
        norm=cast(Literal["l2", "linf"], condition.norm),
        epsilon=condition.epsilon,
        seed=setting.runtime.seed,
        indices=numbers.to(device),
    )


def _stand_in(
    setting: AttackSetting, stored: StoredDetector, surrogate: StoredDetector | None, device: torch.device
) -> tuple[Any, float]:
    """Give the model that an attack is made on before it is shown to the attacked one, and its own threshold."""
    if surrogate is not None:
        network = working_form(setting.network.freeze(), device)
        return join(surrogate, network, device, twin=setting.twin), surrogate.threshold(USUAL)
    if setting.substitute is None:
        raise DataError("a transfer attack needs the data set substitute; run the pipeline adaptive_attack as a whole")
    network, own = restore_substitute(setting.substitute, stored)
    twin = setting.substitute.twin
    return join(own, working_form(network, device), device, twin=twin), own.threshold(USUAL)
