"""Check the configuration of attacks and build them; identify their code."""

from __future__ import annotations

from typing import Any

from adv_detect.algorithms.attacks.arguments import argument_names, check_arguments, parse_numbers
from adv_detect.algorithms.attacks.configured import ConfiguredAttack, Runner
from adv_detect.algorithms.attacks.registry import DEEP_FEATURES, REGISTRY, attack_class
from adv_detect.errors import ConfigurationError, refuse_non_finite, unknown_choice
from adv_detect.params import AttackParams, Norm
from adv_detect.sharding.sources import source_identity

DRIVERS: dict[Runner, str] = {
    "gradient": "adv_detect.algorithms.attacks.gradient.run_gradient_attack",
    "carlini_wagner": "adv_detect.algorithms.attacks.carlini_wagner.L2CarliniWagner",
    "minimal_norm": "adv_detect.algorithms.attacks.minimal_norm.MinimalNorm",
    "foolbox": "adv_detect.algorithms.attacks.foolbox_model.CountingModel",
    "deep_features": "adv_detect.algorithms.attacks.deep_features.run_deep_features",
}
STEPS = 10
TOTAL_STEP = 2.0
"""Sum of all steps over epsilon: an attack of n steps moves 2 epsilon / n at each (Massoli et al., CVIU 2021)."""
NORM_OF_ORDER: dict[float, Norm] = {1.0: "l1", 2.0: "l2", float("inf"): "linf"}
FAST_GRADIENT = ("L1FastGradientAttack", "L2FastGradientAttack", "LinfFastGradientAttack")


def build_attack(name_in_config: str, params: AttackParams) -> ConfiguredAttack:
    """Check the configuration of one attack and build it.

    Args:
        name_in_config: Name of the attack in the configuration; the messages start with it.
        params: Its configuration.

    Returns:
        The attack, ready for ``run_attack``.

    Raises:
        ConfigurationError: Attack, norm, epsilon or an argument is not usable; the message names key, value and
            valid choices.
    """
    key = f"attacks.{name_in_config}"
    arguments = parse_numbers(params.arguments)
    refuse_non_finite(f"{key}.arguments", arguments)
    if params.attack == DEEP_FEATURES:
        return _build_deep_features(name_in_config, params, arguments)
    make = attack_class(key, params)
    arguments = _with_defaults(params.attack, make, arguments)
    arguments = _with_distance(key, params, make, arguments)
    check_arguments(f"{key}.arguments", arguments, make)
    instance = _construct(key, make, arguments)
    return ConfiguredAttack(
        name=name_in_config,
        runner=_runner(instance),
        norm=_norm(key, params, instance),
        epsilon=_epsilon(key, params, instance),
        return_early=params.return_early,
        arguments=arguments,
        instance=instance,
        needs_representatives=bool(getattr(instance, "needs_representatives", False)),
    )


def attack_source(name_in_config: str, params: AttackParams) -> dict[str, str]:
    """Identify the code of an attack and of what drives it, so that a change of it makes its images anew.

    Args:
        name_in_config: Name of the attack in the configuration.
        params: Its configuration.

    Returns:
        As from :func:`adv_detect.sharding.sources.source_identity`.

    Raises:
        ConfigurationError: As from :func:`build_attack`.
    """
    from foolbox.attacks.base import Attack

    built = build_attack(name_in_config, params)
    driver = source_identity(None, DRIVERS[built.runner])
    return (
        driver if built.instance is None else driver | source_identity(type(built.instance)) | source_identity(Attack)
    )


def _build_deep_features(name: str, params: AttackParams, arguments: dict[str, Any]) -> ConfiguredAttack:
    from adv_detect.algorithms.attacks.deep_features import parse_arguments

    key = f"attacks.{name}"
    if params.norm not in (None, "linf"):
        raise unknown_choice(f"{key}.norm", params.norm, ["linf"])
    if params.epsilon is not None:
        raise ConfigurationError(
            f"{key}.epsilon: expected none, the size of deep-features is arguments.max_thres (0..255), "
            f"got {params.epsilon:g}"
        )
    try:
        parsed = parse_arguments(arguments)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{key}: {exc}") from exc
    return ConfiguredAttack(
        name=name,
        runner="deep_features",
        norm="linf",
        epsilon=None,
        return_early=params.return_early,
        arguments=arguments,
        needs_representatives=True,
        judge=parsed.representative,
        guides=parsed.guides,
    )


def _with_defaults(attack: str, make: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Fill in the published step: 10 steps of 2 epsilon / steps."""
    if attack not in REGISTRY or not REGISTRY[attack].iterative:
        return arguments
    filled = {"steps": STEPS, **arguments}
    sized = "rel_stepsize" in filled or filled.get("abs_stepsize") is not None
    if not sized and isinstance(filled["steps"], int) and filled["steps"] > 0:
        filled["rel_stepsize"] = TOTAL_STEP / filled["steps"]
    return filled


def _with_distance(key: str, params: AttackParams, make: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Give a foolbox attack that works in any norm the configured one."""
    from foolbox import distances
    from foolbox.attacks.base import FlexibleDistanceMinimizationAttack

    if not issubclass(make, FlexibleDistanceMinimizationAttack) or "distance" not in argument_names(make):
        return arguments
    if params.norm is None:
        raise ConfigurationError(f"{key}.norm: {params.attack} needs one of [l1, l2, linf], got none")
    return {**arguments, "distance": getattr(distances, params.norm)}


def _construct(key: str, make: type, arguments: dict[str, Any]) -> Any:
    try:
        return make(**arguments)
    except (TypeError, ValueError, AssertionError) as exc:
        raise ConfigurationError(
            f"{key}.arguments: {make.__name__} refuses {arguments}: {exc}; "
            f"valid names: [{', '.join(argument_names(make))}]"
        ) from exc


def _runner(instance: Any) -> Runner:
    from foolbox.attacks.gradient_descent_base import BaseGradientDescent

    from adv_detect.algorithms.attacks.carlini_wagner import L2CarliniWagner
    from adv_detect.algorithms.attacks.minimal_norm import MinimalNorm

    if isinstance(instance, L2CarliniWagner):
        return "carlini_wagner"
    if isinstance(instance, MinimalNorm):
        return "minimal_norm"
    if isinstance(instance, BaseGradientDescent):
        own_loop = type(instance).run is not BaseGradientDescent.run
        if not own_loop or type(instance).__name__ in FAST_GRADIENT:
            return "gradient"
    return "foolbox"


def _norm(key: str, params: AttackParams, instance: Any) -> Norm | None:
    order = getattr(getattr(instance, "distance", None), "p", None)
    own = None if order is None else NORM_OF_ORDER.get(float(order))
    if params.norm is not None and own is not None and params.norm != own:
        raise ConfigurationError(f"{key}.norm: {params.attack} works in {own}, got {params.norm!r}; omit the key")
    return own or params.norm


def _epsilon(key: str, params: AttackParams, instance: Any) -> float | None:
    from foolbox.attacks.base import FixedEpsilonAttack

    if params.epsilon is None and isinstance(instance, FixedEpsilonAttack):
        raise ConfigurationError(
            f"{key}.epsilon: {params.attack} needs the size of the perturbation in the network's pixel range, "
            "such as 0.3 or '8/255', got none"
        )
    return params.epsilon
