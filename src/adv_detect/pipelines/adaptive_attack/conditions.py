"""Conditions of the adaptive attacks: detector, norm, budget, criterion and source images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd
import torch

from adv_detect.algorithms.attacks.adaptive import AdaptiveAttack, AttackKind, attack_kind, build_adaptive_attack
from adv_detect.algorithms.attacks.adaptive.registry import FORM_ARGUMENT
from adv_detect.algorithms.detectors import (
    LearnsFrom,
    StoredDetector,
    is_differentiable,
    learns_from,
)
from adv_detect.errors import ConfigurationError
from adv_detect.jobs.detectors import CRITERIA, DetectorJob, plan_jobs
from adv_detect.names import BOTH_SIMILARITIES, GATE_BOTH, GATE_DETECTOR, GATE_SIMILARITY
from adv_detect.params import AdaptiveAttackParams, AdaptiveAttackSpec, Criterion, DetectorTrainingParams
from adv_detect.pipelines.adaptive_attack.models import REFERENCE_THRESHOLD, USUAL


@dataclass(frozen=True)
class Condition:
    """One attack under one budget and criterion.

    Attributes:
        name: Configured name of the attack.
        spec: The attack.
        norm: ``l2`` or ``linf``.
        epsilon: Budget in pixel units of the network; None for attacks that search for the smallest perturbation.
        criterion: Whether a class is aimed at.
    """

    name: str
    spec: AdaptiveAttackSpec
    norm: str
    epsilon: float | None
    criterion: Criterion

    @property
    def kind(self) -> AttackKind[Any]:
        """The attack with what it needs."""
        return attack_kind(self.spec.attack)

    @property
    def knows(self) -> str:
        """Form of the gate that the attack is made against."""
        return str(self.spec.arguments.get("gate", GATE_BOTH)) if self.kind.guide == "templates" else GATE_DETECTOR

    @property
    def asks_detector(self) -> bool:
        """Tell whether the detector has to pass an image."""
        return self.knows != GATE_SIMILARITY

    @property
    def key(self) -> str:
        """``<attack>/<norm>-<epsilon>/<criterion>``."""
        size = "free" if self.epsilon is None else f"{self.epsilon:.6g}"
        return f"{self.name}/{self.norm}-{size}/{self.criterion}"

    @property
    def identity(self) -> dict[str, object]:
        """Facts that decide the attack, without the name of a surrogate, of which the fingerprint counts instead."""
        spec = {name: value for name, value in self.spec if name != "surrogate"}
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"spec": spec}

    def build(self, bounds: tuple[float, float]) -> AdaptiveAttack:
        """Build the attack with the arguments that follow from form and budget."""
        arguments = dict(self.spec.arguments)
        if self.spec.form == "reference":
            arguments[FORM_ARGUMENT] = "reference"
        arguments |= self.kind.budget_arguments(self.epsilon, bounds)
        return build_adaptive_attack(self.spec.attack, arguments)


def conditions(params: AdaptiveAttackParams, names: tuple[str, ...] | None = None) -> Iterator[Condition]:
    """List the conditions of the configured attacks.

    Args:
        params: The attacks.
        names: Keep these attacks only; None keeps all.

    Yields:
        One condition per attack, norm, epsilon and criterion.
    """
    for name, spec in params.active.items():
        if names is not None and name not in names:
            continue
        for criterion in spec.criteria or params.criteria:
            for norm, epsilon in _budgets(spec, params):
                yield Condition(name, spec, norm, epsilon, criterion)


def _budgets(spec: AdaptiveAttackSpec, params: AdaptiveAttackParams) -> Iterator[tuple[str, float | None]]:
    kind = attack_kind(spec.attack)
    if not kind.takes_budget:
        yield kind.norms[0], None
        return
    for norm, sizes in (spec.budgets if spec.budgets is not None else params.budgets).items():
        for size in sizes:
            yield norm, size


def check_adaptive(params: AdaptiveAttackParams, training: DetectorTrainingParams, bounds: tuple[float, float]) -> None:
    """Check the attacks before work starts.

    Args:
        params: The attacks.
        training: The detectors there are.
        bounds: Pixel range of the network.

    Raises:
        ConfigurationError: A detector is not trained, an attack or argument is unknown, or an attack cannot be run
            as configured.
    """
    unknown = sorted(set(params.detectors) - set(training.active))
    if unknown:
        raise ConfigurationError(
            f"adaptive_attack.detectors: expected configurations of detector_training, that is some of "
            f"{sorted(training.active)}, got {unknown}"
        )
    learning = [name for name in params.detectors if learns_from(training.active[name]) is LearnsFrom.ATTACKS]
    untrained = sorted(set(params.trained_criteria) - set(training.criteria))
    if untrained and learning:
        raise ConfigurationError(
            f"adaptive_attack.trained_criteria: expected some of detector_training.criteria {list(training.criteria)}, "
            f"got {untrained}"
        )
    for name, spec in params.active.items():
        if unknown := sorted(set(spec.detectors or ()) - set(training.configurations)):
            raise ConfigurationError(
                f"adaptive_attack.attacks.{name}.detectors: expected configurations of detector_training, that is some "
                f"of {sorted(training.configurations)}, got {unknown}"
            )
    _check_gradients(params, training)
    _check_surrogates(params, training)
    for name, spec in params.active.items():
        _check_needs(f"adaptive_attack.attacks.{name}", spec)
    for condition in conditions(params):
        _check_condition(condition, bounds)


def _check_gradients(params: AdaptiveAttackParams, training: DetectorTrainingParams) -> None:
    """Refuse attacks that follow gradients on detectors without one, which would seem robust for want of it."""
    for name in params.detectors:
        if is_differentiable(training.active[name]):
            continue
        following = [
            attack
            for attack, spec in params.active.items()
            if spec.role != "transfer"
            and attack_kind(spec.attack).follows == "gradients"
            and (spec.detectors is None or name in spec.detectors)
        ]
        if following:
            raise ConfigurationError(
                f"adaptive_attack.detectors: {name!r} has no gradient that an attack could follow, got {following}; "
                "name the detectors that these attacks are meant for under their key detectors, or leave it out"
            )


def _check_surrogates(params: AdaptiveAttackParams, training: DetectorTrainingParams) -> None:
    """Refuse to make an attack on a detector that is not there, or that has no gradient to follow."""
    usable = sorted(name for name, one in training.active.items() if is_differentiable(one))
    for name, spec in params.active.items():
        if spec.surrogate is not None and spec.surrogate not in usable:
            raise ConfigurationError(
                f"adaptive_attack.attacks.{name}.surrogate: expected a configuration of detector_training whose "
                f"detectors have a gradient, that is one of {usable}, got {spec.surrogate!r}"
            )


def _check_condition(condition: Condition, bounds: tuple[float, float]) -> None:
    spec, place = condition.spec, f"adaptive_attack.attacks.{condition.name}"
    try:
        condition.build(bounds)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{place}: {exc}") from exc
    if condition.norm not in condition.kind.norms:
        raise ConfigurationError(
            f"{place}.budgets: {spec.attack} works in {' and '.join(condition.kind.norms)} only, got {condition.norm}"
        )
    span = bounds[1] - bounds[0]
    if condition.norm == "linf" and condition.epsilon is not None and condition.epsilon > span:
        raise ConfigurationError(f"{place}.budgets.linf: expected at most {span:g}, got {condition.epsilon:g}")


def _check_needs(place: str, spec: AdaptiveAttackSpec) -> None:
    """Check that an attack is given what it needs and nothing that it cannot use."""
    try:
        kind = attack_kind(spec.attack)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{place}.attack: {exc}") from exc
    if not kind.takes_budget and spec.budgets is not None:
        smallest = kind.norms[0].capitalize()
        raise ConfigurationError(
            f"{place}.budgets: {spec.attack} searches for the smallest {smallest} perturbation; leave out"
        )
    if kind.budget_argument in spec.arguments:
        raise ConfigurationError(
            f"{place}.arguments.{kind.budget_argument}: {spec.attack} takes it from budgets, where 10 of 255 is "
            f"'{kind.norms[0]}: [10/255]'; leave out"
        )
    if spec.role == "transfer" and (kind.guide != "none" or spec.form == "reference"):
        raise ConfigurationError(f"{place}: an attack with a guide or in the reference form cannot be transferred")
    if (kind.guide == "templates") != (spec.classifier == BOTH_SIMILARITIES):
        expected = BOTH_SIMILARITIES if kind.guide == "templates" else "network or nearest_medoid"
        raise ConfigurationError(f"{place}.classifier: expected {expected} for {spec.attack}, got {spec.classifier}")
    if kind.guide == "clean_images" and spec.classifier == "nearest_medoid":
        raise ConfigurationError(
            f"{place}.classifier: {spec.attack} moves towards clean images as the detector describes them; use "
            "classifier: network"
        )


def detector_keys(names: tuple[str, ...], params: AdaptiveAttackParams, training: DetectorTrainingParams) -> list[str]:
    """List the keys of the detectors to attack: all that they can learn from, per trained criterion, first seed."""
    configurations = {name: training.active[name] for name in names}
    attacks = dict.fromkeys(("any",), CRITERIA)  # keys do not depend on which attacks there are
    jobs = plan_jobs(configurations, attacks, criteria=params.trained_criteria, seeds=training.seeds[:1])
    found = {name: [job.key for job in jobs_of] for name, jobs_of in _by_name(jobs).items()}
    return [key for name in names for key in found[name]]


def _by_name(jobs: Iterable[DetectorJob]) -> dict[str, list[DetectorJob]]:
    grouped: dict[str, list[DetectorJob]] = {}
    for job in jobs:
        grouped.setdefault(job.name, []).append(job)
    return grouped


def threshold_of(spec: AdaptiveAttackSpec, stored: StoredDetector) -> float:
    """Logit above which an attack counts as caught: the published 0 in the reference's form, else at FPR 5 %."""
    return REFERENCE_THRESHOLD if spec.form == "reference" else stored.threshold(USUAL)


def _passing(spec: AdaptiveAttackSpec, stored: StoredDetector) -> float:
    """Score up to which a clean image is attacked: attacks with a published form pass at both thresholds."""
    usual = stored.threshold(USUAL)
    return min(REFERENCE_THRESHOLD, usual) if attack_kind(spec.attack).published else usual


def choose_sources(
    scored: pd.DataFrame,
    spec: AdaptiveAttackSpec,
    stored: StoredDetector,
    *,
    seed: int,
    count: int,
    per_class: int | None = None,
) -> tuple[int, ...]:
    """Choose the images to attack: classified correctly, passed by the detector, in an order drawn from the seed.

    Args:
        scored: Clean images with class and score.
        spec: The attack; says which classifier and which threshold.
        stored: The detector.
        seed: Decides the order, the same for every detector and attack.
        count: How many at most.
        per_class: How many at most of one class.

    Returns:
        Source indices.
    """
    column = "predicted" if spec.classifier == "network" else "nearest"
    order = torch.randperm(len(scored), generator=torch.Generator().manual_seed(seed)).numpy()
    drawn = scored.iloc[order]
    usable = drawn[(drawn[column] == drawn["label"]) & (drawn["score"] <= _passing(spec, stored))]
    if per_class is not None:
        usable = usable.groupby("label").head(per_class)
    return tuple(int(index) for index in usable["source_index"].iloc[:count])
