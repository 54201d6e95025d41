"""The adaptive attacks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args

from pydantic import ValidationError

from adv_detect.algorithms.attacks.adaptive.cw_detector import CwDetectorArguments, cw_detector
from adv_detect.algorithms.attacks.adaptive.deep_detector import DeepDetectorArguments, deep_detector
from adv_detect.algorithms.attacks.adaptive.hop_skip_jump import HopSkipJumpArguments, hop_skip_jump
from adv_detect.algorithms.attacks.adaptive.matching import MatchingArguments, matching
from adv_detect.algorithms.attacks.adaptive.multi_target import MultiTargetArguments, multi_target
from adv_detect.algorithms.attacks.adaptive.orthogonal import OrthogonalArguments, orthogonal
from adv_detect.algorithms.attacks.adaptive.random_noise import RandomNoiseArguments, random_noise
from adv_detect.algorithms.attacks.adaptive.second_opinion import SecondOpinionArguments, second_opinion
from adv_detect.algorithms.attacks.adaptive.selective import SelectiveArguments, classifier_only, selective
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, BudgetNorm, Candidates, EndToEndModel
from adv_detect.algorithms.attacks.adaptive.verification import VerificationArguments, verification
from adv_detect.algorithms.attacks.adaptive.weighted_sum import WeightedSumArguments, weighted_sum
from adv_detect.algorithms.attacks.arguments import refused_arguments
from adv_detect.algorithms.attacks.deep_features_objective import PIXEL_LEVELS
from adv_detect.dotted import import_dotted
from adv_detect.errors import ConfigurationError, refuse_non_finite, unknown_choice
from adv_detect.fields import Block
from adv_detect.sharding.sources import source_identity

_Arguments = TypeVar("_Arguments", bound=Block)

GuideSource = Literal["none", "clean_images", "medoids", "starting_points", "templates"]
Follows = Literal["gradients", "queries", "random noise"]
NORMS: tuple[BudgetNorm, ...] = get_args(BudgetNorm)
FORM_ARGUMENT = "selection"
"""Argument that chooses between the published and the correct form of an attack."""


@dataclass(frozen=True, kw_only=True)
class AttackKind(Generic[_Arguments]):
    """An attack, the type of its arguments, and what it needs. A dotted path in the configuration names one of these.

    Attributes:
        attack: Model, task and arguments to the best images found.
        arguments: Checks what the configuration gives.
        guide: What the task's guide is chosen from: ``clean_images``, as the detector describes them (trajectories
            ``(N, L, K)``); ``medoids`` of the last layer, features ``(N, D)``; ``starting_points``, images
            ``(N, K, channels, H, W)`` of other classes that pass; ``templates`` of the classes in network and twin,
            ``(N, 2, D)``, with levels; ``none`` leaves the task without one.
        follows: ``gradients`` of network and detector; without them (``queries``, ``random noise``) it can attack any
            detector, and an attack that follows gradients must not do worse.
        takes_budget: Whether the perturbation has a bound; without one the attack searches for the smallest, in the
            first of ``norms``.
        norms: Norms that it can work in.
        budget_argument: Argument that takes the budget, in units of 8-bit pixels; None where the task's epsilon does.
        published: Whether it has a published form beside the correct one, chosen by the argument ``selection``. Both
            start from the same images.

    Raises:
        ConfigurationError: The needs contradict each other or the arguments.
    """

    attack: Callable[[EndToEndModel, AdaptiveTask, _Arguments], Candidates]
    arguments: type[_Arguments]
    guide: GuideSource = "none"
    follows: Follows = "gradients"
    takes_budget: bool = True
    norms: tuple[BudgetNorm, ...] = NORMS
    budget_argument: str | None = None
    published: bool = False

    def __post_init__(self) -> None:
        """Check the needs."""
        if self.guide not in get_args(GuideSource):
            raise unknown_choice("AttackKind.guide", self.guide, get_args(GuideSource))
        if not self.norms or not set(self.norms) <= set(NORMS):
            raise ConfigurationError(f"AttackKind.norms: expected some of {list(NORMS)}, got {list(self.norms)}")
        if self.budget_argument is not None and not self.takes_budget:
            raise ConfigurationError(
                f"AttackKind.budget_argument: expected None without a budget, got {self.budget_argument!r}"
            )
        for name in (self.budget_argument, FORM_ARGUMENT if self.published else None):
            if name is not None and name not in self.arguments.model_fields:
                raise unknown_choice("AttackKind: argument that it needs", name, sorted(self.arguments.model_fields))

    def budget_arguments(self, epsilon: float | None, bounds: tuple[float, float]) -> dict[str, float]:
        """Put a budget in pixel units of the network into the argument that takes it, where there is one.

        Args:
            epsilon: The budget; None for none.
            bounds: Lowest and highest pixel value.
        """
        if self.budget_argument is None or epsilon is None:
            return {}
        return {self.budget_argument: epsilon / (bounds[1] - bounds[0]) * PIXEL_LEVELS}


@dataclass(frozen=True, kw_only=True)
class AdaptiveAttack:
    """An attack with checked arguments.

    Attributes:
        name: Registered name or dotted path.
        kind: The attack.
        arguments: Its arguments.
    """

    name: str
    kind: AttackKind[Any]
    arguments: Block

    @property
    def total_steps(self) -> int | None:
        """Steps of all its runs on an image that withstands; None where it does not count them."""
        found: int | None = getattr(self.arguments, "total_steps", None)
        return found

    def __call__(self, model: EndToEndModel, task: AdaptiveTask) -> Candidates:
        """Attack all images of the task in one batch."""
        return self.kind.attack(model, task, self.arguments)


_KINDS: dict[str, AttackKind[Any]] = {
    "classifier_only": AttackKind(attack=classifier_only, arguments=SelectiveArguments),
    "selective": AttackKind(attack=selective, arguments=SelectiveArguments),
    "orthogonal": AttackKind(attack=orthogonal, arguments=OrthogonalArguments),
    "weighted_sum": AttackKind(attack=weighted_sum, arguments=WeightedSumArguments),
    "matching": AttackKind(attack=matching, arguments=MatchingArguments, guide="clean_images"),
    "multi_target": AttackKind(attack=multi_target, arguments=MultiTargetArguments),
    "random_noise": AttackKind(attack=random_noise, arguments=RandomNoiseArguments, follows="random noise"),
    "hop_skip_jump": AttackKind(
        attack=hop_skip_jump,
        arguments=HopSkipJumpArguments,
        guide="starting_points",
        follows="queries",
        takes_budget=False,
        norms=("linf",),
    ),
    "hop_skip_jump_l2": AttackKind(
        attack=hop_skip_jump,
        arguments=HopSkipJumpArguments,
        guide="starting_points",
        follows="queries",
        takes_budget=False,
        norms=("l2",),
    ),
    "cw_detector": AttackKind(
        attack=cw_detector, arguments=CwDetectorArguments, takes_budget=False, norms=("l2",), published=True
    ),
    "deep_detector": AttackKind(
        attack=deep_detector,
        arguments=DeepDetectorArguments,
        guide="medoids",
        norms=("linf",),
        budget_argument="max_thres",
        published=True,
    ),
    "verification": AttackKind(attack=verification, arguments=VerificationArguments, guide="medoids"),
    "second_opinion": AttackKind(attack=second_opinion, arguments=SecondOpinionArguments, guide="templates"),
}


def adaptive_attack_names() -> tuple[str, ...]:
    """Return the registered names, sorted."""
    return tuple(sorted(_KINDS))


def attack_kind(name: str) -> AttackKind[Any]:
    """Find an attack and what it needs.

    Args:
        name: Registered name, or the dotted path of an :class:`AttackKind`.

    Raises:
        ConfigurationError: Unknown attack; the message lists what is valid.
    """
    return _KINDS[name] if name in _KINDS else _imported_kind(name)


def build_adaptive_attack(name: str, arguments: Mapping[str, Any] | None = None) -> AdaptiveAttack:
    """Find an attack and check its arguments.

    Args:
        name: Registered name, or the dotted path of an :class:`AttackKind`.
        arguments: Arguments that differ from the defaults.

    Returns:
        The attack, ready for :func:`run_adaptive_attack`.

    Raises:
        ConfigurationError: Unknown attack, unknown argument, or a value out of range or not finite; the message lists
            what is valid.
    """
    kind = attack_kind(name)
    refuse_non_finite(f"arguments of adaptive attack {name!r}", dict(arguments or {}))
    try:
        checked = kind.arguments(**dict(arguments or {}))
    except ValidationError as exc:
        raise refused_arguments(f"adaptive attack {name!r}", kind.arguments, exc) from exc
    return AdaptiveAttack(name=name, kind=kind, arguments=checked)


def adaptive_attack_source(name: str) -> dict[str, str]:
    """Identify the code of an attack, so that a change of it makes its images anew.

    Args:
        name: Registered name, or the dotted path of an :class:`AttackKind`.

    Returns:
        As from :func:`adv_detect.sharding.sources.source_identity`.

    Raises:
        ConfigurationError: Unknown attack.
    """
    kind = attack_kind(name)
    return source_identity(kind.attack, "" if name in _KINDS else name)


def _imported_kind(name: str) -> AttackKind[Any]:
    choices = (*_KINDS, "<dotted path of an AttackKind>")
    if "." not in name:
        raise unknown_choice("adaptive attack", name, choices)
    found = import_dotted("adaptive attack", name, f"one of [{', '.join(choices)}]")
    if not isinstance(found, AttackKind):
        raise ConfigurationError(f"adaptive attack: expected {name!r} to be an AttackKind, got {type(found).__name__}")
    return found
