"""An attack with the configuration that was checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adv_detect.params import Norm

Runner = Literal["gradient", "carlini_wagner", "minimal_norm", "foolbox", "deep_features"]
BY_NETWORK = "network"


@dataclass(frozen=True)
class ConfiguredAttack:
    """An attack whose configuration has been checked.

    Attributes:
        name: Name in the configuration.
        runner: Which code drives it.
        norm: Norm of the perturbation; None where the attack has none.
        epsilon: Size allowed for fixed-epsilon attacks, largest size that counts as a success for attacks that
            search for the smallest perturbation; None for no limit.
        return_early: Whether an image is done at its first success.
        arguments: Parsed constructor arguments, defaults of the registry included.
        instance: The foolbox attack object; None for the deep-features attack.
        needs_representatives: Whether it reads the class representatives, so that other ones make its images anew. A
            foolbox attack says so by a class attribute of this name; its ``run`` then gets the keyword ``context``.
        judge: Who decides whether it has won: the network, or the nearest representatives of this kind.
        guides: Source id of the image that it approaches, by name of the class aimed at.
    """

    name: str
    runner: Runner
    norm: Norm | None
    epsilon: float | None
    return_early: bool
    arguments: dict[str, Any] = field(default_factory=dict)
    instance: Any = None
    needs_representatives: bool = False
    judge: str = BY_NETWORK
    guides: Mapping[str, str] = field(default_factory=dict)

    def epsilon_bound(self, bounds: tuple[float, float]) -> float | None:
        """Return the largest perturbation, in ``norm``, that every returned image must keep; None for no limit.

        Args:
            bounds: Lowest and highest pixel value.
        """
        if self.runner != "deep_features":
            return self.epsilon
        from adv_detect.algorithms.attacks.deep_features import parse_arguments

        return parse_arguments(self.arguments).epsilon(bounds)
