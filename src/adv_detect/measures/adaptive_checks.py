"""Signs that a robustness figure measures a weak attack and not a strong detector.

After Carlini et al., "On evaluating adversarial robustness", 2019, and Athalye, Carlini and Wagner, "Obfuscated
gradients give a false sense of security", 2018. Record tables are those of
:mod:`adv_detect.measures.adaptive_metrics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from adv_detect.errors import DataError
from adv_detect.measures.adaptive_metrics import (
    GROUP,
    ReportedFpr,
    check_records,
    common_images,
    spread_over_budgets,
)

RATE_TOLERANCE = 0.02
"""How far a success rate may fall where it should not, as a share of the images; one image may always differ."""
IMAGES_OF_CHANCE = 1.5
ZERO_GRADIENT_LIMIT = 0.1
"""Highest mean share of gradient evaluations without a gradient, over images that withstood."""
SCORE_SPREAD_LIMIT = 1e-6
"""Detector logits that vary less than this are constant."""
DEFAULT_FPR: ReportedFpr = "05"


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        name: What was checked.
        passed: Whether the figures of ``detector`` may be believed in this respect.
        detail: The numbers behind it, and what a failure means.
        detector: Whose figures are unreliable if it failed.
    """

    name: str
    passed: bool
    detail: str
    detector: str


def run_checks(
    records: pd.DataFrame,
    *,
    single_step: Mapping[str, Sequence[str]] | None = None,
    transfer: Sequence[str] = (),
    natural_scores: Mapping[str, ArrayLike] | None = None,
) -> list[CheckResult]:
    """Run all checks that the records allow.

    Args:
        records: The record table.
        single_step: Per single-step attack, the iterative attacks that must be at least as strong.
        transfer: Attacks made on a substitute; all others know the detector.
        natural_scores: Per detector its scores of clean images, for the check of constant detectors.

    Returns:
        One result per check and condition.
    """
    many_steps = records[~records["attack"].isin(list(single_step or {}))]  # one long step may well overshoot
    return [
        *(epsilon_never_hurts(many_steps) if len(many_steps) else []),
        *iterative_beats_single_step(records, single_step or {}),
        *white_box_beats_transfer(records, transfer),
        *gradients_present(records, transfer=transfer),
        *scores_vary(records, natural_scores=natural_scores),
    ]


def unreliable_detectors(results: Iterable[CheckResult]) -> dict[str, list[str]]:
    """Collect the reasons why a detector's figures must not be read as robustness.

    Args:
        results: From the checks.

    Returns:
        Details of the failed checks per detector; detectors without a failure are absent.
    """
    reasons: dict[str, list[str]] = {}
    for result in results:
        if not result.passed:
            reasons.setdefault(result.detector, []).append(f"{result.name}: {result.detail}")
    return reasons


def epsilon_never_hurts(
    records: pd.DataFrame, *, tolerance: float = RATE_TOLERANCE, fpr: ReportedFpr = DEFAULT_FPR
) -> list[CheckResult]:
    """Check that no attack gets weaker with a larger budget.

    Args:
        records: The record table.
        tolerance: Allowed fall of the success rate.
        fpr: Which threshold's success is compared.

    Returns:
        A result per detector, attack, norm and criterion that was run at two epsilons or more.
    """
    check_records(records)
    results = []
    budgeted = records[records["epsilon"].notna()]
    for keys, part in budgeted.groupby(["detector", "classifier", "attack", "norm", "criterion"], sort=True):
        slack = _slack(tolerance, part["source_id"].nunique())
        rates = part.groupby("epsilon", sort=True)[f"evaded_fpr_{fpr}"].mean()
        if len(rates) < 2:
            continue
        falls = [(low, high) for low, high in pairwise(rates.index) if rates[high] < rates[low] - slack]
        curve = ", ".join(f"{epsilon:g}: {rate:.3f}" for epsilon, rate in rates.items())
        detail = f"{_join(keys[1:])}: success by epsilon {curve}"
        if falls:
            detail += "; a larger budget made the attack weaker, so it is badly tuned or its gradients mislead"
        results.append(_result("epsilon never hurts", not falls, detail, keys[0]))
    return results


def iterative_beats_single_step(
    records: pd.DataFrame,
    pairs: Mapping[str, Sequence[str]],
    *,
    tolerance: float = RATE_TOLERANCE,
    fpr: ReportedFpr = DEFAULT_FPR,
) -> list[CheckResult]:
    """Check that the strongest iterative attack is at least as strong as one step.

    Args:
        records: The record table.
        pairs: Per single-step attack, the iterative attacks to compare with it.
        tolerance: Allowed lead of the single step.
        fpr: Which threshold's success is compared.

    Returns:
        A result per condition and single-step attack with an iterative attack beside it.

    Raises:
        DataError: A named attack has no records.
    """
    check_records(records)
    _require_attacks(records, [*pairs, *(one for many in pairs.values() for one in many)])
    results = []
    for condition, rates, count in _rates_by_attack(records, fpr):
        for single, many in pairs.items():
            there = [name for name in many if name in rates]
            if single not in rates or not there:
                continue
            iterative = max(there, key=rates.__getitem__)
            passed = rates[iterative] >= rates[single] - _slack(tolerance, count)
            detail = f"{_join(condition[1:])}: {iterative} {rates[iterative]:.3f}, {single} {rates[single]:.3f}"
            if not passed:
                detail += "; many steps achieve less than one, so the gradients mislead"
            results.append(_result("iterative beats single step", passed, detail, condition[0]))
    return results


def white_box_beats_transfer(
    records: pd.DataFrame,
    transfer: Sequence[str],
    *,
    tolerance: float = RATE_TOLERANCE,
    fpr: ReportedFpr = DEFAULT_FPR,
) -> list[CheckResult]:
    """Check that knowing the detector is worth at least as much as a substitute.

    Args:
        records: The record table.
        transfer: Attacks made on a substitute.
        tolerance: Allowed lead of the best transfer attack over the best other one.
        fpr: Which threshold's success is compared.

    Returns:
        A result per condition with attacks of both kinds.

    Raises:
        DataError: A named attack has no records.
    """
    check_records(records)
    _require_attacks(records, transfer)
    results = []
    for condition, rates, count in _rates_by_attack(records, fpr):
        from_substitute = {name: rate for name, rate in rates.items() if name in transfer}
        white_box = {name: rate for name, rate in rates.items() if name not in transfer}
        if not from_substitute or not white_box:
            continue
        strongest = max(white_box, key=white_box.__getitem__)
        best = max(from_substitute, key=from_substitute.__getitem__)
        passed = white_box[strongest] >= from_substitute[best] - _slack(tolerance, count)
        detail = (
            f"{_join(condition[1:])}: white-box {strongest} {white_box[strongest]:.3f}, "
            f"transfer {best} {from_substitute[best]:.3f}"
        )
        if not passed:
            detail += "; images made without the detector's gradients do better, so these are masked"
        results.append(_result("white-box beats transfer", passed, detail, condition[0]))
    return results


def gradients_present(
    records: pd.DataFrame,
    *,
    limit: float = ZERO_GRADIENT_LIMIT,
    transfer: Sequence[str] = (),
    fpr: ReportedFpr = DEFAULT_FPR,
) -> list[CheckResult]:
    """Check that images withstood an attack that had gradients to follow.

    Fooled images that the detector caught and images that were never fooled are looked at apart, since each could
    hide the other.

    Args:
        records: The record table.
        limit: Highest mean share of zero gradients over either kind.
        transfer: Attacks that use no gradient of the detector, left out.
        fpr: Which threshold's success decides who withstood.

    Returns:
        A result per detector and attack.
    """
    check_records(records)
    results = []
    for keys, part in records[~records["attack"].isin(transfer)].groupby(["detector", "attack"], sort=True):
        withstood = part[~part[f"evaded_fpr_{fpr}"]]
        shares = withstood.groupby("fooled")["zero_gradient_share"].mean()
        caught, unmoved = float(shares.get(True, 0.0)), float(shares.get(False, 0.0))
        passed = max(caught, unmoved) <= limit
        detail = f"{keys[1]}: share of zero gradients {caught:.3f} on caught images, {unmoved:.3f} on images not fooled"
        if not passed:
            detail += f" (limit {limit:g}); the gradients are masked, so the attack had nothing to follow"
        results.append(_result("gradients present", passed, detail, keys[0]))
    return results


def scores_vary(
    records: pd.DataFrame,
    *,
    natural_scores: Mapping[str, ArrayLike] | None = None,
    limit: float = SCORE_SPREAD_LIMIT,
) -> list[CheckResult]:
    """Check that the detector looks at its input at all.

    Args:
        records: The record table.
        natural_scores: Per detector its scores of clean images, counted in where given.
        limit: Smallest difference between the highest and the lowest logit.

    Returns:
        A result per detector.
    """
    check_records(records)
    results = []
    for detector, part in records.groupby("detector", sort=True):
        natural = np.asarray((natural_scores or {}).get(str(detector), []), dtype=np.float64)
        scores = np.concatenate([part["detector_score"].to_numpy(dtype=np.float64), natural])
        spread = float(scores.max() - scores.min())
        passed = spread > limit
        detail = f"detector logits of {len(scores)} images spread over {spread:.3g}"
        if not passed:
            detail += "; the detector gives every image the same score and detects nothing"
        results.append(_result("scores vary", passed, detail, detector))
    return results


def _result(name: str, passed: bool, detail: str, detector: object) -> CheckResult:
    return CheckResult(name=name, passed=passed, detail=detail, detector=str(detector))


def _slack(tolerance: float, count: int) -> float:
    """The tolerance, or one image and a half where that is more."""
    return max(tolerance, IMAGES_OF_CHANCE / count)


def _rates_by_attack(records: pd.DataFrame, fpr: ReportedFpr) -> list[tuple[tuple[object, ...], dict[str, float], int]]:
    """Success of the attacks of each condition over the images that all of them met, and how many these are."""
    column = f"evaded_fpr_{fpr}"
    found = []
    for keys, part in spread_over_budgets(records).groupby(GROUP, dropna=False, sort=True):
        shared = common_images(part)
        if len(shared):
            rates = {str(name): float(rate) for name, rate in shared.groupby("attack")[column].mean().items()}
            found.append((keys, rates, shared["source_id"].nunique()))
    return found


def _require_attacks(records: pd.DataFrame, names: Iterable[str]) -> None:
    present = set(records["attack"])
    missing = sorted(set(names) - present)
    if missing:
        raise DataError(f"adaptive records: expected attacks {missing}, got only {sorted(present)}")


def _join(parts: Iterable[object]) -> str:
    return " ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)
