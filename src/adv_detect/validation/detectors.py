"""Check that every configured detector can be trained, or read."""

from __future__ import annotations

import logging
from pathlib import Path

from adv_detect.algorithms.detectors import LearnsFrom, detector_class, parse_reference_name
from adv_detect.errors import ConfigurationError
from adv_detect.jobs.benign_changes import chosen_changes
from adv_detect.names import BOTH_CRITERIA, CONFIDENT, EARLY, TARGETED, UNTARGETED
from adv_detect.params import AdversarialGenerationParams, DetectorParams, DetectorTrainingParams, EvaluationParams

LOGGER = logging.getLogger(__name__)


def check_kinds(params: DetectorTrainingParams) -> bool:
    """Check that the kind of every detector exists.

    Args:
        params: The detectors.

    Returns:
        Whether one of them learns from attacks.

    Raises:
        ConfigurationError: A kind is unknown.
    """
    learning = []
    for name, one in params.active.items():
        try:
            learning.append(detector_class(one.kind).learns_from is LearnsFrom.ATTACKS)
        except ConfigurationError as exc:
            raise ConfigurationError(f"detector_training.configurations.{name}.kind: {exc}") from exc
    return any(learning)


def check_detectors(params: DetectorTrainingParams, attacks: AdversarialGenerationParams | None) -> None:
    """Check that detectors have attacks to train on and published checkpoints can be read.

    Args:
        params: The detectors.
        attacks: The attacks.

    Raises:
        ConfigurationError: A criterion has no attack, a form of attack that a detector learns from is not there, or a
            checkpoint is missing or has a name that says nothing.
    """
    learning = check_kinds(params)
    for name, one in params.active.items():
        _check_training_data(f"detector_training.configurations.{name}", one, attacks)
    for name, path in params.reference_checkpoints.items():
        if not Path(path).is_file():
            raise ConfigurationError(
                f"detector_training.reference_checkpoints.{name}: expected an existing file, got {path!r}"
            )
        parse_reference_name(path)
    trained = [one for one in attacks.active.values() if one.train] if attacks else []
    for criterion in params.criteria if attacks and learning else ():
        wanted = {TARGETED, UNTARGETED} if criterion == BOTH_CRITERIA else {criterion}
        if not all(any(one in attack.criteria for attack in trained) for one in wanted):
            raise ConfigurationError(
                f"detector_training.criteria: {criterion!r} needs an attack with train: true and that criterion in "
                "adversarial_generation.attacks, got none"
            )


def check_changes(params: DetectorTrainingParams, evaluation: EvaluationParams | None) -> None:
    """Check that the benign changes that detectors are trained against exist and are for training.

    Args:
        params: The detectors.
        evaluation: The changes.

    Raises:
        ConfigurationError: One is not usable.
    """
    for name, one in params.active.items():
        try:
            chosen_changes(evaluation, one.train_against)
        except ConfigurationError as exc:
            raise ConfigurationError(f"detector_training.configurations.{name}.{exc}") from exc


def _check_training_data(key: str, one: DetectorParams, attacks: AdversarialGenerationParams | None) -> None:
    """Compare what a configuration says of its training data with its kind, and with the attacks there are."""
    made_by = detector_class(one.kind)
    learns = made_by.learns_from
    if one.learns_from is not None and one.learns_from != learns:
        raise ConfigurationError(
            f"{key}.learns_from: expected {learns.value!r}, as kind {one.kind!r} does, got {one.learns_from!r}"
        )
    if learns is LearnsFrom.NOTHING and one.train_against:
        raise ConfigurationError(f"{key}.train_against: kind {one.kind!r} learns from nothing; leave the key out")
    if learns is not LearnsFrom.ATTACKS:
        if "train_forms" in one.model_fields_set and one.train_forms != (EARLY,):
            raise ConfigurationError(f"{key}.train_forms: kind {one.kind!r} learns from no attack; leave the key out")
        return
    try:
        needs = made_by.needs_confident(one.arguments)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{key}.{exc}") from exc
    if needs and CONFIDENT not in one.train_forms:
        raise ConfigurationError(
            f"{key}.train_forms: expected [{EARLY}, {CONFIDENT}], got {list(one.train_forms)}: logit gaps and views "
            "learned from attacks that stop at the decision boundary make a detector blind for those that go on"
        )
    for form in one.train_forms if attacks else ():
        if attacks and not attacks.trained((form,)) and (form == CONFIDENT or attacks.active):
            raise ConfigurationError(
                f"{key}.train_forms: {form!r} needs an attack of that form with train: true in "
                f"adversarial_generation.attacks, got none"
            )


def warn_of_nothing_left_out(params: DetectorTrainingParams, attacks: AdversarialGenerationParams | None) -> None:
    """Warn where ``leave_one_out`` asks for something, but training has no attack to spare or no single criterion.

    Args:
        params: The detectors.
        attacks: The attacks.
    """
    if attacks is None or not params.leave_one_out:
        return
    trained = list(attacks.trained((EARLY,)).values())
    if not any(sum(criterion in one for one in trained) > 1 for criterion in params.criteria):
        LOGGER.warning(
            "detector_training.leave_one_out: %s: expected at least two attacks with train: true of one of "
            "the criteria %s, got %d attacks; no detector is trained without one of them",
            ", ".join(params.leave_one_out),
            [criterion for criterion in params.criteria if criterion != BOTH_CRITERIA],
            len(trained),
        )


def check_top_k(detectors: DetectorTrainingParams, classes: int) -> None:
    """Check that no detector reads more classes than there are.

    Args:
        detectors: The detectors.
        classes: Number of classes.

    Raises:
        ConfigurationError: One does.
    """
    for name, one in detectors.active.items():
        if one.top_k is not None and one.top_k > classes:
            raise ConfigurationError(
                f"detector_training.configurations.{name}.top_k: expected at most the {classes} classes of the data, "
                f"got {one.top_k}"
            )
