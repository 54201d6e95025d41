"""Checks of a configuration as a whole, before any work starts."""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adv_detect.algorithms.device import resolve_device
from adv_detect.datasets.overlap import refuse_overlap
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.params import (
    AdversarialGenerationParams,
    DetectorTrainingParams,
    EvaluationParams,
    NetworkParams,
    RuntimeParams,
    ServingParams,
    TargetTrainingParams,
)
from adv_detect.reporting import PARTS
from adv_detect.validation.epsilon import warn_of_epsilons
from adv_detect.validation.run import block_of, check_further, check_numbers, check_rates, warn_of_nothing_left_out

if TYPE_CHECKING:
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

IMAGES = ("train_images", "test_images", "verification_images")
FEWEST_CLASSES = 2
SHOWN_NAMES = 5  # of classes, in a message


def check_run(pipeline: Pipeline, catalog: DataCatalog, own_attacks: Mapping[str, Any] | None = None) -> None:
    """Check everything that the nodes of a pipeline are going to use.

    Args:
        pipeline: The nodes that will run.
        catalog: Their datasets and parameters.
        own_attacks: ``adversarial_generation.attacks`` as environment and command line state it, without the base
            configuration; None where that is not known.

    Raises:
        ConfigurationError: A value is unknown or values do not fit together.
        DataError: A dataset that must exist does not.
    """
    inputs = {name for node in pipeline.nodes for name in node.inputs}
    network = block_of(catalog, "network", NetworkParams)
    attacks = block_of(catalog, "adversarial_generation", AdversarialGenerationParams)
    detectors = block_of(catalog, "detector_training", DetectorTrainingParams)
    runtime = block_of(catalog, "runtime", RuntimeParams)
    if runtime is not None and "params:runtime" in inputs:
        check_runtime(runtime)
    _check_files(pipeline, catalog)
    if network is not None and "params:network" in inputs:
        _check_network(network, catalog)
    if {"train_images", "test_images"} <= inputs:
        _check_classes(catalog)
    if "test_images" in inputs and "train_images" in catalog and catalog.exists("train_images"):
        refuse_overlap(catalog.load("train_images"), catalog.load("test_images"))
    if attacks is not None and "params:adversarial_generation" in inputs:
        check_attacks(attacks, network)
        if own_attacks is not None and network is not None and "test_images" in inputs:
            warn_of_epsilons(attacks, own_attacks, catalog.load("test_images"), network.bounds)
    if "params:splits" in inputs:
        check_numbers(catalog)
    if detectors is not None and "params:detector_training" in inputs:
        check_detectors(detectors, attacks)
        _check_published(detectors, catalog)
        warn_of_nothing_left_out(detectors, attacks)
    check_further(pipeline, catalog)
    check_rates(catalog)
    _check_stored_network(pipeline, catalog, detectors)
    _check_up_to_date(pipeline, catalog)


def runtime_of(catalog: DataCatalog) -> RuntimeParams:
    """Read how a run goes about its work.

    Args:
        catalog: Datasets and parameters.

    Returns:
        The block ``runtime``; the defaults where there is none.
    """
    return block_of(catalog, "runtime", RuntimeParams) or RuntimeParams()


def registered_name(pipeline: Pipeline, catalog: DataCatalog) -> str | None:
    """Read the name under which a pipeline registers its model.

    Args:
        pipeline: The nodes that will run.
        catalog: Datasets and parameters.

    Returns:
        ``serving.name``; None where no node asks for it.
    """
    serving = block_of(catalog, "serving", ServingParams) if "params:serving" in pipeline.inputs() else None
    return serving.name if serving is not None else None


def check_runtime(params: RuntimeParams) -> None:
    """Check that this machine has the device, and the engine is installed.

    Args:
        params: Device and engine.

    Raises:
        ConfigurationError: One of them is not there.
    """
    resolve_device(params.device)
    if params.engine == "ray" and find_spec("ray") is None:
        raise ConfigurationError(
            "runtime.engine: 'ray' was asked for but is not installed; use local, or pip install 'adv-detect[ray]'"
        )


def check_attacks(params: AdversarialGenerationParams, network: NetworkParams | None) -> None:
    """Build every attack and compare its epsilon with the pixel range.

    Args:
        params: The attacks.
        network: The network, for its pixel range.

    Raises:
        ConfigurationError: An attack, an argument or an epsilon is not usable.
    """
    from adv_detect.algorithms.attacks.registry import build_attack

    span = network.bounds[1] - network.bounds[0] if network else math.inf
    for name, attack in params.active.items():
        try:
            built = build_attack(name, attack)
        except ConfigurationError as exc:  # its keys are relative to the block
            raise ConfigurationError(f"adversarial_generation.{exc}") from exc
        if built.norm == "linf" and built.epsilon is not None and built.epsilon > span:
            raise ConfigurationError(
                f"adversarial_generation.attacks.{name}.epsilon: expected at most {span:g}, the pixel range of the "
                f"network (network.bounds), got {built.epsilon:g}"
            )


def check_detectors(params: DetectorTrainingParams, attacks: AdversarialGenerationParams | None) -> None:
    """Check that detectors have attacks to train on and published checkpoints can be read.

    Args:
        params: The detectors.
        attacks: The attacks.

    Raises:
        ConfigurationError: A criterion has no attack, or a checkpoint is missing or has a name that says nothing.
    """
    from adv_detect.algorithms.detectors import LearnsFrom, detector_class, parse_reference_name

    learning = []
    for name, one in params.active.items():
        try:
            learning.append(detector_class(one.kind).learns_from is LearnsFrom.ATTACKS)
        except ConfigurationError as exc:
            raise ConfigurationError(f"detector_training.configurations.{name}.kind: {exc}") from exc
    for name, path in params.reference_checkpoints.items():
        if not Path(path).is_file():
            raise ConfigurationError(
                f"detector_training.reference_checkpoints.{name}: expected an existing file, got {path!r}"
            )
        parse_reference_name(path)
    trained = [one for one in attacks.active.values() if one.train] if attacks else []
    for criterion in params.criteria if attacks and any(learning) else ():
        wanted = {"targeted", "untargeted"} if criterion == "both" else {criterion}
        if not all(any(one in attack.criteria for attack in trained) for one in wanted):
            raise ConfigurationError(
                f"detector_training.criteria: {criterion!r} needs an attack with train: true and that criterion in "
                "adversarial_generation.attacks, got none"
            )


def _check_published(params: DetectorTrainingParams, catalog: DataCatalog) -> None:
    """Read every published checkpoint, and compare its number of classes with that of the data."""
    from adv_detect.algorithms.detectors import load_reference_detector
    from adv_detect.algorithms.detectors.trajectory.mlp import MLPReadout

    if not params.reference_checkpoints or "train_images" not in catalog:
        return
    classes = len(catalog.load("train_images").class_names)
    for name, path in params.reference_checkpoints.items():
        detector = load_reference_detector(path)
        if isinstance(detector, MLPReadout):
            fits, held = detector.inputs % classes == 0, f"{detector.inputs} inputs, no multiple of them"
        else:
            fits, held = detector.classes == classes, f"{detector.classes}"
        if not fits:
            raise ConfigurationError(
                f"detector_training.reference_checkpoints.{name}: expected a detector for the {classes} classes of "
                f"train_images, {path!r} is for {held}; give it the data that it was published with"
            )


def _check_files(pipeline: Pipeline, catalog: DataCatalog) -> None:
    missing = [
        name
        for name in sorted(pipeline.inputs())
        if not name.startswith("params:")
        and name != "parameters"
        and name not in IMAGES + PARTS
        and not catalog.exists(name)
    ]
    if missing:
        makers: dict[str, list[str]] = {}
        for name in missing:
            makers.setdefault(_maker(name), []).append(name)
        listed = "; ".join(f"{', '.join(names)} ({maker})" for maker, names in makers.items())
        raise DataError(
            f"the run needs what other pipelines leave on disk, and these are not there: {listed}; run those pipelines "
            "before this one, or `kedro run` for the whole job"
        )


def _maker(name: str) -> str:
    """Say which pipeline makes a dataset; Kedro itself has loaded only those that it was asked to run."""
    from adv_detect import pipelines

    for module in pkgutil.iter_modules(pipelines.__path__):
        pipeline = import_module(f"{pipelines.__name__}.{module.name}").create_pipeline()
        if name in pipeline.all_outputs():
            return f"--pipeline={module.name}"
    return "no pipeline makes it: put it there, or correct its entry in the catalog"


def _check_network(params: NetworkParams, catalog: DataCatalog) -> None:
    from adv_detect.images import shape_of
    from adv_detect.networks.readings import log_readings
    from adv_detect.networks.target import build_target
    from adv_detect.networks.weights import head_name

    if params.checkpoint is not None and not Path(params.checkpoint).is_file():
        raise ConfigurationError(f"network.checkpoint: expected an existing file, got {params.checkpoint!r}")
    images = catalog.load("train_images")
    classes = len(images.class_names)
    training = block_of(catalog, "target_training", TargetTrainingParams) or TargetTrainingParams()
    if classes < FEWEST_CLASSES:
        raise DataError(f"train_images: expected at least {FEWEST_CLASSES} classes, got {classes}")
    target = build_target(
        params,
        class_names=images.class_names,
        image_shape=shape_of(images),
        strict_head=not training.head_only,
    )
    log_readings(target.spec.readings)
    if training.head_only and head_name(target.network) is None:
        raise ConfigurationError(
            f"target_training.head_only: expected false, as {params.name} has no linear layer that gives its "
            "logits, got True"
        )
    detectors = block_of(catalog, "detector_training", DetectorTrainingParams)
    if detectors is not None:
        _check_classes_kept(detectors, classes)
    shown = block_of(catalog, "evaluation", EvaluationParams)
    if shown is not None:
        _check_class_shown(shown, classes)


def _check_classes(catalog: DataCatalog) -> None:
    """Labels are positions in the list of class names, so the two sets must agree on the list."""
    train, test = (catalog.load(name).class_names for name in ("train_images", "test_images"))
    if train == test:
        return
    extra, missing = [name for name in test if name not in train], [name for name in train if name not in test]
    raise DataError(
        f"test_images: expected the {len(train)} classes of train_images in the same order, got {len(test)}; "
        f"only in test_images: {_some(extra)}; only in train_images: {_some(missing)}; give both the same class folders"
    )


def _check_stored_network(pipeline: Pipeline, catalog: DataCatalog, detectors: DetectorTrainingParams | None) -> None:
    """Compare images and parameters with the network, where that comes from disk."""
    inputs = {name for node in pipeline.nodes for name in node.inputs}
    if "network_weights" not in pipeline.inputs():
        return
    spec = catalog.load("network_weights").spec
    if "params:network" not in inputs:
        from adv_detect.networks.readings import log_readings

        log_readings(spec.readings)
    for name in IMAGES[:2]:
        if name in inputs and (found := tuple(catalog.load(name).class_names)) != tuple(spec.class_names):
            raise DataError(
                f"{name}: expected the {len(spec.class_names)} classes of the network on disk, "
                f"{_some(list(spec.class_names))}, got {len(found)}: {_some(list(found))}; run the whole job, or give "
                "the environment that made the network"
            )
    if detectors is not None and "params:detector_training" in inputs:
        _check_classes_kept(detectors, spec.num_classes)
    shown = block_of(catalog, "evaluation", EvaluationParams)
    if shown is not None and "params:evaluation" in inputs:
        _check_class_shown(shown, spec.num_classes)


def _check_classes_kept(detectors: DetectorTrainingParams, classes: int) -> None:
    for name, one in detectors.active.items():
        if one.top_k is not None and one.top_k > classes:
            raise ConfigurationError(
                f"detector_training.configurations.{name}.top_k: expected at most the {classes} classes of the data, "
                f"got {one.top_k}"
            )


def _check_class_shown(evaluation: EvaluationParams, classes: int) -> None:
    if evaluation.show_class >= classes:
        raise ConfigurationError(f"evaluation.show_class: expected below {classes}, got {evaluation.show_class}")


def _check_up_to_date(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Refuse to measure detectors on images that are not those that they belong to: they may have learned from them."""
    there = pipeline.inputs()
    if {"adversarials", "activations"} <= there:
        images, stored = catalog.load("adversarials").fingerprints(), catalog.load("activations")
        made_from = {key: stored.metadata(key).get("made_from") for key in stored.fingerprints()}
        if set(images) != set(made_from) or any(one not in (None, images[key]) for key, one in made_from.items()):
            raise DataError(
                "activations: they belong to other images than those in adversarials, which were made anew since; run "
                "`kedro run --pipeline=detector_training` first, or `kedro run` for the whole job"
            )
    if {"detectors", "activations"} <= there:
        marks, detectors = catalog.load("activations").fingerprints(), catalog.load("detectors")
        old = [key for key in detectors.fingerprints() if _learned_elsewhere(detectors.metadata(key), marks)]
        if old:
            raise DataError(
                f"detectors: {_some(old)} learned from other activations than those on disk; run "
                "`kedro run --pipeline=detector_training` first, or `kedro run` for the whole job"
            )
    if {"thresholds", "params:evaluation"} <= there:
        _check_thresholds(catalog)


def _learned_elsewhere(facts: dict[str, Any], marks: dict[str, str]) -> bool:
    return any(marks.get(key) != mark for key, mark in facts.get("learned_from", {}).items())


def _check_thresholds(catalog: DataCatalog) -> None:
    """Compare the rates with those that thresholds were fixed at."""
    evaluation = block_of(catalog, "evaluation", EvaluationParams)
    assert evaluation is not None
    fixed = sorted(set(catalog.load("thresholds")["fpr"]))
    if not set(evaluation.fprs) <= set(fixed):
        raise ConfigurationError(
            f"evaluation.fprs: thresholds were fixed at {fixed}, got {list(evaluation.fprs)}; fix the others with "
            "`kedro run --pipeline=detector_training`, which trains no detector anew for that"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more or "none"
