"""Check that every configured detector can be trained, or read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from adv_detect.algorithms.detectors import (
    LearnsFrom,
    build_detector,
    learns_from,
    needs_confident,
    parse_reference_name,
    reads_twin,
    with_members,
)
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError
from adv_detect.jobs.activation_plans import no_twin
from adv_detect.jobs.benign_changes import chosen_changes
from adv_detect.names import BOTH_CRITERIA, CONFIDENT, EARLY, TARGETED, UNTARGETED
from adv_detect.params import (
    AdversarialGenerationParams,
    DetectorParams,
    DetectorTrainingParams,
    EvaluationParams,
    TwinTrainingParams,
)

LOGGER = logging.getLogger(__name__)
STAND_IN_WIDTH = 64
"""Width of the layers of class representatives that stand in for those that a run is going to make."""


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
        with _named(name):
            learning.append(learns_from(one) is LearnsFrom.ATTACKS)
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
    learns = learns_from(one)
    if one.learns_from is not None and one.learns_from != learns:
        raise ConfigurationError(
            f"{key}.learns_from: expected {learns.value!r}, as kind {one.kind!r} does, got {one.learns_from!r}"
        )
    if learns is LearnsFrom.NOTHING and one.train_against:
        raise ConfigurationError(
            f"{key}.train_against: kind {one.kind!r} is not trained on anything; leave the key out"
        )
    if learns is not LearnsFrom.ATTACKS:
        if "train_forms" in one.model_fields_set and one.train_forms != (EARLY,):
            raise ConfigurationError(f"{key}.train_forms: kind {one.kind!r} learns from no attack; leave the key out")
        return
    if needs_confident(one) and CONFIDENT not in one.train_forms:
        raise ConfigurationError(
            f"{key}.train_forms: expected [{EARLY}, {CONFIDENT}], got {list(one.train_forms)}: a detector that "
            "learns logit gaps or views from attacks that stop at the decision boundary misses those that go on"
        )
    for form in one.train_forms if attacks else ():
        if attacks and not attacks.trained((form,)) and (form == CONFIDENT or attacks.active):
            raise ConfigurationError(
                f"{key}.train_forms: {form!r} needs an attack of that form with train: true in "
                f"adversarial_generation.attacks, got none"
            )


def check_twin_is_there(detectors: DetectorTrainingParams, twin: TwinTrainingParams | None) -> None:
    """Refuse detectors that read a twin where none is configured.

    Args:
        detectors: The detectors.
        twin: Its block.

    Raises:
        ConfigurationError: One reads it.
    """
    readers = reads_twin(detectors.active)
    if readers and twin is not None and twin.network is None:
        raise ConfigurationError(no_twin(readers))


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
            "the criteria %s, got %d attacks; leave-one-out training is skipped",
            ", ".join(params.leave_one_out),
            [criterion for criterion in params.criteria if criterion != BOTH_CRITERIA],
            len(trained),
        )


def check_arguments(
    params: DetectorTrainingParams, *, layers: Sequence[str], class_names: Sequence[str], clean: int | None
) -> None:
    """Construct every detector that takes arguments, with class representatives that stand in for those to come.

    Args:
        params: The detectors.
        layers: Names of the layers read.
        class_names: Classes of the network.
        clean: Most natural images of the train split; None where that is not known.

    Raises:
        ConfigurationError: A detector refuses its arguments or the number of layers, or needs more images.
    """
    given = _stand_in(layers, class_names)
    for name, one in params.active.items():
        if one.reads_trajectories:
            continue
        try:
            made = build_detector(one, given)
        except ConfigurationError as exc:
            raise ConfigurationError(f"detector_training.configurations.{name}: {exc}") from exc
        except (ArithmeticError, LookupError, RuntimeError, ValueError):
            continue  # it may be the stand-in that does not suit it: training says more
        if clean is not None and made.clean_needed > clean:
            raise ConfigurationError(
                f"detector_training.configurations.{name}: {one.kind} with arguments {one.arguments} needs at least "
                f"{made.clean_needed} natural images of the train split, there are at most {clean}; lower what it asks "
                "for, or use more images"
            )


def _stand_in(layers: Sequence[str], class_names: Sequence[str]) -> Representatives:
    points = [torch.zeros(len(class_names), STAND_IN_WIDTH) for _ in layers]
    return Representatives(
        layers=tuple(layers),
        class_names=tuple(class_names),
        medoids=points,
        centroids=points,
        whitening=[torch.eye(STAND_IN_WIDTH) for _ in layers],
        medoid_source_ids=[[""] * len(class_names) for _ in layers],
    )


def check_top_k(detectors: DetectorTrainingParams, classes: int) -> None:
    """Check that no detector reads more classes than there are.

    Args:
        detectors: The detectors.
        classes: Number of classes.

    Raises:
        ConfigurationError: One does.
    """
    every: list[tuple[str, DetectorParams]] = []
    for name, one in detectors.active.items():
        with _named(name):
            every += with_members(one, name)
    for name, one in every:
        if one.top_k is not None and one.top_k > classes:
            raise ConfigurationError(
                f"detector_training.configurations.{name}.top_k: expected at most the {classes} classes of the data, "
                f"got {one.top_k}"
            )


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Name the configuration of a detector in an error about its kind or its arguments."""
    try:
        yield
    except ConfigurationError as exc:
        place = "" if str(exc).startswith("arguments") else "kind: "
        raise ConfigurationError(f"detector_training.configurations.{name}.{place}{exc}") from exc
