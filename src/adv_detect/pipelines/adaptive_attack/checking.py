"""Sanity checks of the figures of adaptive attacks, as the configured attacks allow them."""

from __future__ import annotations

from typing import Any

import pandas as pd
from numpy.typing import NDArray

from adv_detect.algorithms.attacks.adaptive import attack_kind
from adv_detect.measures.adaptive_checks import run_checks, unreliable_detectors
from adv_detect.measures.check_results import CheckResult
from adv_detect.params import AdaptiveAttackParams
from adv_detect.pipelines.adaptive_attack.layer_matching import LAYER_MATCHING

FOLLOWED = ("gradients", "queries", "random noise")
"""What attacks may follow."""


def attacks_that_follow(kind: str, params: AdaptiveAttackParams) -> list[str]:
    """Name the configured attacks that follow gradients, queries or random noise.

    Args:
        kind: One of `FOLLOWED`.
        params: The attacks.

    Returns:
        Their configured names.
    """
    return [name for name, spec in params.active.items() if attack_kind(spec.attack).follows == kind]


def check_attacks(
    records: pd.DataFrame,
    params: AdaptiveAttackParams,
    naturals: dict[str, NDArray[Any]],
    *,
    bounds: tuple[float, float],
) -> list[CheckResult]:
    """Run the sanity checks that the configured attacks allow.

    Args:
        records: Records without those in the published form.
        params: The attacks, for their roles.
        naturals: Per detector its scores of clean images.
        bounds: Lowest and highest pixel value.

    Returns:
        One result per check and condition.
    """
    present = set(records["attack"])
    roles = {name: spec.role for name, spec in params.active.items() if name in present}
    found = {kind: [name for name in attacks_that_follow(kind, params) if name in present] for kind in FOLLOWED}
    iterative = [name for name in found["gradients"] if roles[name] == "white_box"]
    single = {name: iterative for name, role in roles.items() if role == "single_step"}
    blind = {"transfer": [name for name, role in roles.items() if role == "transfer"]}
    blind |= {kind: names for kind, names in found.items() if kind != "gradients"}
    blind |= {LAYER_MATCHING: [LAYER_MATCHING]} if LAYER_MATCHING in present else {}
    return run_checks(
        records, single_step=single, blind=blind, natural_scores=naturals, pixel_range=bounds[1] - bounds[0]
    )


def with_reliability(summary: pd.DataFrame, checks: list[CheckResult]) -> pd.DataFrame:
    """Mark all figures of a detector and judge for which a check failed.

    Args:
        summary: A row per detector, judge (``classifier``) and attack.
        checks: Outcomes of the checks.

    Returns:
        The table with the columns ``reliable`` and ``reasons``.
    """
    reasons = {judge: unreliable_detectors(checks, judge) for judge in summary["classifier"].unique()}
    rows = zip(summary["detector"], summary["classifier"], strict=True)
    texts = ["; ".join(reasons[judge].get(key, [])) for key, judge in rows]
    return summary.assign(reliable=[not text for text in texts], reasons=texts)
