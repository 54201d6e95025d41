"""Checks that compare attacks: those that know more, or do more, must not do worse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from adv_detect.errors import DataError
from adv_detect.measures.adaptive_records import (
    BUDGET_TOLERANCE,
    GROUP,
    ReportedFpr,
    check_records,
    common_images,
    spread_over_budgets,
)
from adv_detect.measures.check_results import (
    DEFAULT_FPR,
    RATE_TOLERANCE,
    CheckResult,
    check_result,
    join_words,
    slack,
)


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
            passed = rates[iterative] >= rates[single] - slack(tolerance, count)
            detail = f"{join_words(condition[1:])}: {iterative} {rates[iterative]:.3f}, {single} {rates[single]:.3f}"
            if not passed:
                detail += "; many steps achieve less than one, so the gradients mislead"
            results.append(check_result("iterative beats single step", passed, detail, condition[0]))
    return results


def gradients_beat(
    records: pd.DataFrame,
    blind: Mapping[str, Sequence[str]],
    *,
    tolerance: float = RATE_TOLERANCE,
    fpr: ReportedFpr = DEFAULT_FPR,
) -> list[CheckResult]:
    """Check that following the detector's gradients is worth at least as much as doing without.

    Args:
        records: The record table.
        blind: Attacks that use no gradient of the detector, by what they use instead.
        tolerance: Allowed lead of the best of them over the best other attack.
        fpr: Which threshold's success is compared.

    Returns:
        A result per condition and kind with attacks of both sides.

    Raises:
        DataError: A named attack has no records.
    """
    check_records(records)
    without = [name for names in blind.values() for name in names]
    _require_attacks(records, without)
    results = []
    for kind, names in blind.items():
        mine = records[~records["attack"].isin(set(without) - set(names))]  # each kind over the images that it met
        for condition, rates, count in _rates_by_attack(mine, fpr) if names else ():
            found = {name: rate for name, rate in rates.items() if name in names}
            follow = {name: rate for name, rate in rates.items() if name not in names}
            if not found or not follow:
                continue
            strongest, best = (max(those, key=those.__getitem__) for those in (follow, found))
            passed = follow[strongest] >= found[best] - slack(tolerance, count)
            detail = (
                f"{join_words(condition[1:])}: white-box {strongest} {follow[strongest]:.3f}, "
                f"{kind} {best} {found[best]:.3f}"
            )
            if not passed:
                detail += "; images made without the detector's gradients do better, so these are masked"
            results.append(check_result(f"white-box beats {kind}", passed, detail, condition[0]))
    return results


def is_unbounded(records: pd.DataFrame, pixel_range: float) -> pd.Series:
    """Tell which records have a budget that bounds nothing: they check attacks and say nothing of detectors.

    Args:
        records: The record table.
        pixel_range: Highest minus lowest pixel value.

    Returns:
        Bool per record.
    """
    return (records["norm"] == "linf") & (records["epsilon"] >= pixel_range * (1 - BUDGET_TOLERANCE))


def unbounded_succeeds(
    records: pd.DataFrame,
    pixel_range: float,
    *,
    tolerance: float = RATE_TOLERANCE,
    fpr: ReportedFpr = DEFAULT_FPR,
) -> list[CheckResult]:
    """Check that every image is lost where any image may be turned into any other.

    Natural images of other classes pass, so an attack that cannot find one of its own follows nothing.

    Args:
        records: The record table.
        pixel_range: Highest minus lowest pixel value: the Linf budget that bounds nothing.
        tolerance: Allowed share of images that withstand all attacks.
        fpr: Which threshold's success is looked at.

    Returns:
        A result per detector, classifier and criterion that was attacked so.
    """
    check_records(records)
    results = []
    for keys, part in records[is_unbounded(records, pixel_range)].groupby(
        ["detector", "classifier", "criterion"], sort=True
    ):
        rate = float(part.groupby("source_id")[f"evaded_fpr_{fpr}"].any().mean())
        passed = rate >= 1 - slack(tolerance, part["source_id"].nunique())
        detail = f"{join_words(keys[1:])}: success {rate:.3f} where any pixel may become any other"
        if not passed:
            detail += "; natural images of other classes would pass, so the attack or its gradients are broken"
        results.append(check_result("unbounded attack succeeds", passed, detail, keys[0]))
    return results


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
