"""Attacks on a classifier: gradient descent, Carlini-Wagner, deep features and every attack of foolbox."""

from __future__ import annotations

from adv_detect.algorithms.attacks.configured import ConfiguredAttack
from adv_detect.algorithms.attacks.construction import build_attack
from adv_detect.algorithms.attacks.perturbations import (
    noise_of_same_norm,
    perturbation_norms,
    verify_result,
)
from adv_detect.algorithms.attacks.registry import attack_names
from adv_detect.algorithms.attacks.result import AttackContext, AttackResult
from adv_detect.algorithms.attacks.run import run_attack
from adv_detect.algorithms.attacks.targets import draw_targets
from adv_detect.algorithms.margins import margin
from adv_detect.algorithms.pixels import quantise

__all__ = [
    "AttackContext",
    "AttackResult",
    "ConfiguredAttack",
    "attack_names",
    "build_attack",
    "draw_targets",
    "margin",
    "noise_of_same_norm",
    "perturbation_norms",
    "quantise",
    "run_attack",
    "verify_result",
]
