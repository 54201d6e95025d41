"""The adaptive attacks by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from adv_detect.algorithms.attacks.adaptive.cw_detector import CwDetectorArguments, cw_detector
from adv_detect.algorithms.attacks.adaptive.deep_detector import DeepDetectorArguments, deep_detector
from adv_detect.algorithms.attacks.adaptive.matching import MatchingArguments, matching
from adv_detect.algorithms.attacks.adaptive.orthogonal import OrthogonalArguments, orthogonal
from adv_detect.algorithms.attacks.adaptive.selective import SelectiveArguments, classifier_only, selective
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, Candidates, EndToEndModel
from adv_detect.algorithms.attacks.adaptive.weighted_sum import WeightedSumArguments, weighted_sum
from adv_detect.errors import ConfigurationError, refuse_non_finite, unknown_choice
from adv_detect.params import Block
from adv_detect.sharding.sources import source_identity

_Arguments = TypeVar("_Arguments", bound=Block)


@dataclass(frozen=True, kw_only=True)
class AttackKind(Generic[_Arguments]):
    """An attack and the type of its arguments. A dotted path in the configuration names one of these.

    Attributes:
        attack: Model, task and arguments to the best images found.
        arguments: Checks what the configuration gives.
    """

    attack: Callable[[EndToEndModel, AdaptiveTask, _Arguments], Candidates]
    arguments: type[_Arguments]


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

    def __call__(self, model: EndToEndModel, task: AdaptiveTask) -> Candidates:
        """Attack all images of the task in one batch."""
        return self.kind.attack(model, task, self.arguments)


_KINDS: dict[str, AttackKind[Any]] = {
    "classifier_only": AttackKind(attack=classifier_only, arguments=SelectiveArguments),
    "selective": AttackKind(attack=selective, arguments=SelectiveArguments),
    "orthogonal": AttackKind(attack=orthogonal, arguments=OrthogonalArguments),
    "weighted_sum": AttackKind(attack=weighted_sum, arguments=WeightedSumArguments),
    "matching": AttackKind(attack=matching, arguments=MatchingArguments),
    "cw_detector": AttackKind(attack=cw_detector, arguments=CwDetectorArguments),
    "deep_detector": AttackKind(attack=deep_detector, arguments=DeepDetectorArguments),
}


def adaptive_attack_names() -> tuple[str, ...]:
    """Return the registered names, sorted."""
    return tuple(sorted(_KINDS))


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
    kind = _KINDS[name] if name in _KINDS else _imported_kind(name)
    refuse_non_finite(f"arguments of adaptive attack {name!r}", dict(arguments or {}))
    try:
        checked = kind.arguments(**dict(arguments or {}))
    except ValidationError as exc:
        raise ConfigurationError(_argument_message(name, kind, exc)) from exc
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
    kind = _KINDS[name] if name in _KINDS else _imported_kind(name)
    return source_identity(kind.attack, "" if name in _KINDS else name)


def _imported_kind(name: str) -> AttackKind[Any]:
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as exc:
        raise unknown_choice("adaptive attack", name, (*_KINDS, "<dotted path of an AttackKind>")) from exc
    if not isinstance(found, AttackKind):
        raise ConfigurationError(f"adaptive attack: expected {name!r} to be an AttackKind, got {type(found).__name__}")
    return found


def _argument_message(name: str, kind: AttackKind[Any], error: ValidationError) -> str:
    problems = "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors())
    valid = ", ".join(sorted(kind.arguments.model_fields))
    return f"arguments of adaptive attack {name!r}: {problems}; valid arguments are [{valid}]"
