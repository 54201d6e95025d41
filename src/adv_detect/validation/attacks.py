"""Check that every configured attack can be built."""

from __future__ import annotations

import math

from adv_detect.algorithms.attacks.construction import build_attack
from adv_detect.errors import ConfigurationError
from adv_detect.params import AdversarialGenerationParams, NetworkParams


def check_attacks(params: AdversarialGenerationParams, network: NetworkParams | None) -> None:
    """Build every attack and compare its epsilon with the pixel range.

    Args:
        params: The attacks.
        network: The network, for its pixel range.

    Raises:
        ConfigurationError: An attack, an argument or an epsilon is not usable.
    """
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
