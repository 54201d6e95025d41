"""Checks of adaptive_attack before a run."""

from __future__ import annotations

import logging
from collections.abc import Container

from adv_detect.algorithms.attacks.adaptive import attack_kind
from adv_detect.errors import AdvDetectError, ConfigurationError, DataError
from adv_detect.images import shape_of
from adv_detect.jobs.detectors import LEARNING_SPLITS
from adv_detect.names import BOTH_CRITERIA, EARLY, TARGETED, UNTARGETED
from adv_detect.networks.target import build_target
from adv_detect.params import (
    AdaptiveAttackParams,
    AdaptiveAttackSpec,
    AdversarialGenerationParams,
    DetectorTrainingParams,
    NetworkParams,
    TwinTrainingParams,
)
from adv_detect.pipelines.adaptive_attack.conditions import check_adaptive, detector_keys
from adv_detect.pipelines.adaptive_attack.gate_models import no_twin
from adv_detect.validation.attacks import check_attacks
from adv_detect.validation.detectors import check_kinds
from adv_detect.validation.numbers import LEAST_IMAGES
from adv_detect.validation.run import Run

LOGGER = logging.getLogger(__name__)
KINDS = {BOTH_CRITERIA: {TARGETED, UNTARGETED}}


def check(run: Run) -> None:
    """Check that the adaptive attacks fit the detectors and attacks that are configured, and those on disk.

    Args:
        run: What is going to run.

    Raises:
        ConfigurationError: A name is unknown, or parts do not fit together.
        DataError: A detector to attack is not there.
    """
    params, training = run.read_block(AdaptiveAttackParams), run.block(DetectorTrainingParams)
    if params is None or training is None:
        return
    attacks, network = run.block(AdversarialGenerationParams), run.block(NetworkParams)
    if attacks is not None:
        check_attacks(attacks, network)
    check_kinds(training)
    check_adaptive_block(params, training=training, attacks=attacks, network=network)
    check_twin(params, run.block(TwinTrainingParams))
    if any(spec.needs_substitute for spec in params.active.values()):
        _check_substitute_network(params, network or NetworkParams(), run)
    if "detectors" in run.from_disk:  # trained by an earlier run
        check_trained(params, training, run.catalog.load("detectors"))


def check_adaptive_block(
    params: AdaptiveAttackParams,
    *,
    training: DetectorTrainingParams,
    attacks: AdversarialGenerationParams | None,
    network: NetworkParams | None,
) -> None:
    """Check the adaptive attacks as far as that is possible without detectors and images.

    Args:
        params: The adaptive attacks.
        training: The detectors there are.
        attacks: The ordinary attacks, which a substitute learns from.
        network: The network, for its pixel range.

    Raises:
        ConfigurationError: A name is unknown, or parts do not fit together.
    """
    check_adaptive(params, training, (network or NetworkParams()).bounds)
    if params.hardening.rounds and params.hardening.detectors:
        for key in ("attacks", "test_attacks"):
            if not getattr(params.hardening, key):
                raise ConfigurationError(
                    f"adaptive_attack.hardening.{key}: expected some of {sorted(params.active)} for rounds: "
                    f"{params.hardening.rounds}, got none"
                )
    if attacks is not None and any(spec.needs_substitute for spec in params.active.values()):
        _check_substitute(params, attacks)
    _warn_of_idle(params)


def check_twin(params: AdaptiveAttackParams, twin: TwinTrainingParams | None) -> None:
    """Check that attacks on a gate that asks the twin have one.

    Args:
        params: The attacks.
        twin: The twin; None where that is not known.

    Raises:
        ConfigurationError: There is none.
    """
    for name, spec in params.active.items() if twin is not None and twin.network is None else ():
        if attack_kind(spec.attack).guide == "templates":
            raise ConfigurationError(no_twin(name))


def check_trained(params: AdaptiveAttackParams, training: DetectorTrainingParams, detectors: Container[str]) -> None:
    """Check that the detectors to attack are there.

    Args:
        params: The adaptive attacks.
        training: The detectors as configured.
        detectors: Keys of those on disk.

    Raises:
        DataError: One is not.
    """
    missing = [key for key in detector_keys(params.detectors, params, training) if key not in detectors]
    if missing:
        raise DataError(
            f"adaptive_attack.detectors: expected trained detectors on disk, got none for {missing}; run `kedro run "
            "--pipeline=detector_training` with the same environment first"
        )


def _check_substitute(params: AdaptiveAttackParams, attacks: AdversarialGenerationParams) -> None:
    wanted, place = params.substitute.attacks, "adaptive_attack.substitute"
    usable = {
        name: one
        for name, one in attacks.active.items()
        if one.form == EARLY and set(LEARNING_SPLITS) <= set(one.splits)  # every detector that learns learns from these
    }
    unknown = [name for name in wanted if name not in usable]
    if unknown or not wanted:
        raise ConfigurationError(
            f"{place}.attacks: expected early attacks of adversarial_generation with train and validation splits, some "
            f"of {sorted(usable)}, got {unknown or 'none'}"
        )
    for criterion in params.trained_criteria:
        for one in KINDS.get(criterion, {criterion}):
            if not any(one in usable[name].criteria for name in wanted):
                raise ConfigurationError(
                    f"{place}.attacks: trained_criteria {criterion!r} needs one with the criterion {one!r}, got "
                    f"{list(wanted)}"
                )
    if params.substitute.max_images < LEAST_IMAGES:
        raise ConfigurationError(
            f"{place}.max_images: expected at least {LEAST_IMAGES} images, got {params.substitute.max_images}"
        )


def _check_substitute_network(params: AdaptiveAttackParams, network: NetworkParams, run: Run) -> None:
    """Build the attacker's own network; that of the victim, without its weights, where none is configured."""
    own = params.substitute.network
    images = run.catalog.load("train_images")
    try:
        build_target(
            own or network.model_copy(update={"checkpoint": None}),
            class_names=images.class_names,
            image_shape=shape_of(images),
        )
    except AdvDetectError as exc:
        raise ConfigurationError(f"{'adaptive_attack.substitute.' if own else ''}{exc}") from exc


def _warn_of_idle(params: AdaptiveAttackParams) -> None:
    """Name the attacks that are meant for detectors that are not attacked."""
    idle = [name for name, spec in params.active.items() if not _meant(spec, params)]
    if idle:
        LOGGER.warning(
            "adaptive_attack.attacks: %s: meant for detectors that are not among adaptive_attack.detectors %s, so they "
            "are not run",
            ", ".join(idle),
            list(params.detectors),
        )


def _meant(spec: AdaptiveAttackSpec, params: AdaptiveAttackParams) -> bool:
    return spec.detectors is None or bool(set(spec.detectors) & set(params.detectors))
