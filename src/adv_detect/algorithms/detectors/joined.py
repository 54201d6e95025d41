"""Several detectors as one: each is calibrated on clean images, and their p-values are joined."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector, FitData, FitHistory, LearnsFrom, Reads, score_activations
from adv_detect.algorithms.detectors.calibration import TailTable
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError
from adv_detect.params import DetectorParams
from adv_detect.params.detector_training import TRAINING_DATA

Rule = Literal["bonferroni", "fisher"]
Sides = Literal["one", "two"]
FEWEST_MEMBERS = 2
ARGUMENTS = ("members", "rule", "sides")


class JoinedDetector(Detector):
    """Calls an image adversarial where one of its members, or all together, find it unusual.

    The members are fitted, then their scores on clean validation images give each a table of p-values: with one side
    (default) high scores are unusual, with two sides also low ones, for an attacker who knows a detector can overshoot
    to scores that no clean image has. The score is minus the logarithm of the joint p-value: by Bonferroni the smallest
    one times the number of members, by Fisher that of their product, as if they were independent.
    """

    learns_from = LearnsFrom.ATTACKS

    def __init__(
        self,
        representatives: Representatives,
        *,
        members: Mapping[str, Any],
        rule: Rule = "bonferroni",
        sides: Mapping[str, Sides] | None = None,
    ) -> None:
        """Build the members.

        Args:
            representatives: Class representatives of the network under attack.
            members: Configurations of detectors by name.
            rule: ``bonferroni`` or ``fisher``.
            sides: ``two`` for members whose low scores are unusual too, by name.

        Raises:
            ConfigurationError: A member, a name, the rule or a side is unknown.
        """
        from adv_detect.algorithms.detectors.registry import build_detector

        super().__init__()
        arguments = {"members": members, "rule": rule, "sides": sides}
        self.learns_from, self.reads = self.needs(arguments)  # type: ignore[misc]
        configured = self.members_of(arguments)
        self.rule = rule
        self.two_sided = tuple(name for name in configured if (sides or {}).get(name) == "two")
        self.members = nn.ModuleDict({name: build_detector(one, representatives) for name, one in configured.items()})
        self.clean_needed = max(member.clean_needed for _, member in self._each())
        self.high = nn.ModuleDict({name: TailTable() for name in configured})
        self.low = nn.ModuleDict({name: TailTable() for name in self.two_sided})

    @classmethod
    def members_of(cls, arguments: Mapping[str, Any]) -> dict[str, DetectorParams]:
        """Return the configurations of the members."""
        members = arguments.get("members")
        if not isinstance(members, Mapping):
            raise ConfigurationError(
                "arguments.members: expected configurations of detectors by name, as those under "
                f"detector_training.configurations, got {members!r}"
            )
        return {str(name): _configured(str(name), one) for name, one in members.items()}

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> tuple[LearnsFrom, Reads]:
        """Return what the members need together; clean images they are calibrated on in any case.

        Raises:
            ConfigurationError: The arguments do not fit together.
        """
        from adv_detect.algorithms.detectors.registry import detector_class

        members = cls.members_of(arguments)
        _check(members, arguments)
        found = [detector_class(one.kind).needs(one.arguments) for one in members.values()]
        attacks = any(learns is LearnsFrom.ATTACKS for learns, _ in found)
        reads = Reads(layers=False)
        for _, one in found:
            reads |= one
        return LearnsFrom.ATTACKS if attacks else LearnsFrom.CLEAN, reads

    def fit_chosen(self, data: FitData, *, seed: int) -> FitHistory:
        """Fit the members, then calibrate them on the clean validation images."""
        history: FitHistory = []
        calibrating = data.validation_clean.unchanged()  # false alarms are promised for these
        for name, member in self._each():
            if member.learns_from is not LearnsFrom.NOTHING:
                attacks = member.learns_from is LearnsFrom.ATTACKS
                own = data if attacks else replace(data, attacked=None, validation_attacked=None)
                history += member.fit_chosen(own, seed=seed)
            clean = score_activations(member, calibrating)
            self.high[name].fit(clean)  # type: ignore[operator]
            if name in self.low:
                self.low[name].fit(-clean)  # type: ignore[operator]
        return history

    def forward(self, activations: Activations) -> Tensor:
        """Score images: minus the logarithm of the joint p-value, ``(N,)``."""
        return self._join({name: self._member_scores(name, activations) for name, _ in self._each()})

    def score_as(self, activations: Activations, targets: Tensor, *, scores: Tensor) -> Tensor:
        """Join what the members would say if the network named the targets."""
        return self._join(self._members_as(activations, targets))

    def score_parts(self, activations: Activations, targets: Tensor, *, scores: Tensor) -> Tensor:
        """Give the members apart, where the most unusual one alone decides."""
        found = self._members_as(activations, targets)
        if self.rule != "bonferroni":
            return self._join(found)[:, None]
        return -torch.stack([self.log_p_value(name, one) for name, one in found.items()], dim=1) - math.log(len(found))

    def _members_as(self, activations: Activations, targets: Tensor) -> dict[str, Tensor]:
        own = {name: self._member_scores(name, activations) for name, _ in self._each()}
        return {name: one.score_as(activations, targets, scores=own[name]) for name, one in self._each()}

    def _member_scores(self, name: str, activations: Activations) -> Tensor:
        return activations.derived((id(self), name), lambda: self.members[name](activations))

    def _join(self, scores: Mapping[str, Tensor]) -> Tensor:
        """Minus the logarithm of the joint p-value ``(N,)`` of scores by member."""
        logs = torch.stack([self.log_p_value(name, one) for name, one in scores.items()], dim=1)
        count = logs.shape[1]
        if self.rule == "bonferroni":
            return -logs.amin(dim=1) - math.log(count)
        product = -logs.sum(dim=1)  # half of Fisher's statistic, chi-squared with 2 * count degrees of freedom
        terms = torch.stack([product**power / math.factorial(power) for power in range(count)], dim=1)
        return product - terms.sum(dim=1).log()

    def log_p_value(self, name: str, scores: Tensor) -> Tensor:
        """Return the logarithm of the p-values of the scores ``(N,)`` of a member."""
        high: Tensor = self.high[name](scores)
        return torch.minimum(high, self.low[name](-scores)) + math.log(2) if name in self.low else high

    def describe(self, activations: Activations) -> Tensor:
        """Give the descriptions of all members, flat, beside each other."""
        return torch.cat([member.describe(activations).flatten(1) for _, member in self._each()], dim=1)

    def _each(self) -> list[tuple[str, Detector]]:
        return list(self.members.items())  # type: ignore[arg-type]


def _configured(name: str, member: Any) -> DetectorParams:
    try:
        found = DetectorParams.model_validate(member)
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(["arguments.members", name, *map(str, first["loc"])])
        raise ConfigurationError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from exc
    own_data = sorted(found.model_fields_set & set(TRAINING_DATA))
    if own_data:
        raise ConfigurationError(
            f"arguments.members.{name}: expected no training data of its own, got {own_data}; all members learn from "
            "the same images, which the keys beside kind say"
        )
    return found


def _check(members: Mapping[str, DetectorParams], arguments: Mapping[str, Any]) -> None:
    rule, sides = arguments.get("rule", "bonferroni"), arguments.get("sides") or {}
    unknown = sorted(set(arguments) - set(ARGUMENTS))
    if unknown:
        raise ConfigurationError(f"arguments: expected keys of {list(ARGUMENTS)}, got {unknown}")
    if len(members) < FEWEST_MEMBERS or any("." in name for name in members):
        raise ConfigurationError(
            f"arguments.members: expected at least {FEWEST_MEMBERS}, with names without a dot, got {list(members)}"
        )
    if rule not in get_args(Rule):
        raise ConfigurationError(f"arguments.rule: expected one of {list(get_args(Rule))}, got {rule!r}")
    odd = {name: side for name, side in sides.items() if name not in members or side not in get_args(Sides)}
    if odd:
        raise ConfigurationError(
            f"arguments.sides: expected {' or '.join(get_args(Sides))} for names of {list(members)}, got {odd}"
        )
