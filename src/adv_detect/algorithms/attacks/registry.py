"""Attacks by name, or by the dotted path of any foolbox attack class.

``mi-fgsm`` is foolbox's form: momentum adds up the signs of the gradients (``l2``: gradients of unit length), where
Dong et al., CVPR 2018, add up gradients of unit L1 length.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

from adv_detect.dotted import import_dotted
from adv_detect.errors import ConfigurationError, unknown_choice
from adv_detect.params import AttackParams, Norm

DEEP_FEATURES = "deep-features"


@dataclass(frozen=True)
class RegisteredAttack:
    """Attack behind a registered name.

    Attributes:
        classes: Dotted path of the attack class for each norm; the first is the default.
        iterative: Whether steps and step size default to the published ones.
        on_features: Whether it aims at the features instead of the class.
    """

    classes: Mapping[Norm, str]
    iterative: bool = False
    on_features: bool = False


REGISTRY: dict[str, RegisteredAttack] = {
    "bim": RegisteredAttack(
        {"linf": "foolbox.attacks.LinfBasicIterativeAttack", "l2": "foolbox.attacks.L2BasicIterativeAttack"}, True
    ),
    "pgd": RegisteredAttack(
        {
            "linf": "foolbox.attacks.LinfProjectedGradientDescentAttack",
            "l2": "foolbox.attacks.L2ProjectedGradientDescentAttack",
        },
        True,
    ),
    "mi-fgsm": RegisteredAttack(
        {
            "linf": "foolbox.attacks.mi_fgsm.LinfMomentumIterativeFastGradientMethod",
            "l2": "foolbox.attacks.mi_fgsm.L2MomentumIterativeFastGradientMethod",
        },
        True,
    ),
    "fgsm": RegisteredAttack(
        {"linf": "foolbox.attacks.LinfFastGradientAttack", "l2": "foolbox.attacks.L2FastGradientAttack"}
    ),
    "cw": RegisteredAttack({"l2": "adv_detect.algorithms.attacks.carlini_wagner.L2CarliniWagner"}),
    "minimal-norm": RegisteredAttack({"l2": "adv_detect.algorithms.attacks.minimal_norm.MinimalNorm"}),
    "deepfool": RegisteredAttack(
        {"l2": "foolbox.attacks.L2DeepFoolAttack", "linf": "foolbox.attacks.LinfDeepFoolAttack"}
    ),
    DEEP_FEATURES: RegisteredAttack(
        {"linf": "adv_detect.algorithms.attacks.deep_features.run_deep_features"}, on_features=True
    ),
}


def attack_names() -> tuple[str, ...]:
    """Return the registered names, sorted."""
    return tuple(sorted(REGISTRY))


def attacks_on_features(attacks: Mapping[str, AttackParams]) -> tuple[str, ...]:
    """Return the names of the configured attacks that aim at the features instead of the class.

    Args:
        attacks: Configuration by name. A class named by dotted path says so by a class attribute ``on_features``.

    Raises:
        ConfigurationError: A dotted path leads to no attack.
    """
    return tuple(name for name, one in attacks.items() if _on_features(name, one.attack))


def _on_features(name: str, attack: str) -> bool:
    entry = REGISTRY.get(attack)
    return (
        entry.on_features if entry else bool(getattr(_import_attack(f"attacks.{name}", attack), "on_features", False))
    )


def attack_class(key: str, params: AttackParams) -> type:
    """Find the class of an attack in the norm that is configured.

    Args:
        key: Dotted name of the configuration, for messages.
        params: The configuration.

    Raises:
        ConfigurationError: There is no such attack, or not in this norm.
    """
    entry = REGISTRY.get(params.attack)
    if entry is None:
        return _import_attack(key, params.attack)
    norm: Norm = next(iter(entry.classes)) if params.norm is None else params.norm
    if norm not in entry.classes:
        raise unknown_choice(f"{key}.norm", norm, entry.classes)
    return _import_attack(key, entry.classes[norm])


def _import_attack(key: str, path: str) -> type:
    from foolbox.attacks.base import Attack

    if "." not in path:
        raise unknown_choice(f"{key}.attack", path, [*attack_names(), "<dotted path of a foolbox attack class>"])
    expected = (
        f"one of [{', '.join(attack_names())}] or the dotted path of a foolbox attack class such as "
        "'foolbox.attacks.LinfDeepFoolAttack'"
    )
    found = import_dotted(f"{key}.attack", path, expected)
    if not (isinstance(found, type) and issubclass(found, Attack)) or inspect.isabstract(found):
        raise ConfigurationError(f"{key}.attack: expected a concrete subclass of foolbox.attacks.Attack, got {path!r}")
    return found
