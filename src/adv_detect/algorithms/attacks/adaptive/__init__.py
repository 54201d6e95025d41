"""Attacks on classifier and detector together."""

from adv_detect.algorithms.attacks.adaptive.matching import described_by, nearest_guides
from adv_detect.algorithms.attacks.adaptive.registry import (
    AdaptiveAttack,
    AttackKind,
    adaptive_attack_names,
    attack_kind,
    build_adaptive_attack,
)
from adv_detect.algorithms.attacks.adaptive.run import check_budget, judge, run_adaptive_attack
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveResult, AdaptiveTask, Candidates, Guide
from adv_detect.algorithms.attacks.adaptive.transfer import run_transfer_attack

__all__ = [
    "AdaptiveAttack",
    "AdaptiveResult",
    "AdaptiveTask",
    "AttackKind",
    "Candidates",
    "Guide",
    "adaptive_attack_names",
    "attack_kind",
    "build_adaptive_attack",
    "check_budget",
    "described_by",
    "judge",
    "nearest_guides",
    "run_adaptive_attack",
    "run_transfer_attack",
]
