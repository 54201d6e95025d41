"""Signs that a robustness figure measures a weak attack and not a strong detector.

After Carlini et al., "On evaluating adversarial robustness", 2019, and Athalye, Carlini and Wagner, "Obfuscated
gradients give a false sense of security", 2018. Record tables are those of
:mod:`adv_detect.measures.adaptive_records`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from adv_detect.measures.adaptive_comparisons import gradients_beat, iterative_beats_single_step, unbounded_succeeds
from adv_detect.measures.adaptive_records import ReportedFpr, check_records
from adv_detect.measures.check_results import (
    DEFAULT_FPR,
    RATE_TOLERANCE,
    CheckResult,
    check_result,
    join_words,
    slack,
)

ZERO_GRADIENT_LIMIT = 0.1
"""Highest mean share of gradient evaluations without a gradient, over images that withstood."""
SCORE_SPREAD_LIMIT = 1e-6
"""Detector logits that vary less than this are constant."""


def run_checks(
    records: pd.DataFrame,
    *,
    single_step: Mapping[str, Sequence[str]] | None = None,
    blind: Mapping[str, Sequence[str]] | None = None,
    natural_scores: Mapping[str, ArrayLike] | None = None,
    pixel_range: float | None = None,
) -> list[CheckResult]:
    """Run all checks that the records allow, for each judge by itself.

    What names the class of an image judges attacks of another kind: one of them that fails says nothing of the others.

    Args:
        records: The record table.
        single_step: Per single-step attack, the iterative attacks that must be at least as strong.
        blind: Attacks that use no gradient of the detector, by what they use instead; all others follow it.
        natural_scores: Per detector its scores of clean images, for the check of constant detectors.
        pixel_range: Highest minus lowest pixel value, for the check of an attack without bounds.

    Returns:
        One result per check and condition.
    """
    results = []
    for judge, part in records.groupby("classifier", sort=True):
        present = set(part["attack"])
        singles, unguided = (
            {name: [one for one in many if one in present] for name, many in (given or {}).items()}
            for given in (single_step, blind)
        )
        found = _checks_of_judge(
            part,
            single_step={name: many for name, many in singles.items() if name in present},
            blind=unguided,
            natural_scores=natural_scores,
            pixel_range=pixel_range,
        )
        results += [replace(one, judge=str(judge)) for one in found]
    return results


def _checks_of_judge(
    records: pd.DataFrame,
    *,
    single_step: Mapping[str, Sequence[str]],
    blind: Mapping[str, Sequence[str]],
    natural_scores: Mapping[str, ArrayLike] | None,
    pixel_range: float | None,
) -> list[CheckResult]:
    without = [name for names in blind.values() for name in names]
    many_steps = records[~records["attack"].isin([*single_step, *without])]
    return [
        *(epsilon_never_hurts(many_steps) if len(many_steps) else []),
        *iterative_beats_single_step(records, single_step),
        *gradients_beat(records, blind),
        *(unbounded_succeeds(many_steps, pixel_range) if len(many_steps) and pixel_range is not None else []),
        *gradients_present(records, blind=without),
        *scores_vary(records, natural_scores=natural_scores),
    ]


def unreliable_detectors(results: Iterable[CheckResult], judge: str | None = None) -> dict[str, list[str]]:
    """Collect the reasons why a detector's figures must not be read as robustness.

    Args:
        results: From the checks.
        judge: Column ``classifier`` of the figures; None for those of any.

    Returns:
        Details of the failed checks per detector; detectors without a failure are absent.
    """
    reasons: dict[str, list[str]] = {}
    for result in results:
        if not result.passed and (judge is None or result.judge in ("", judge)):
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
        allowed = slack(tolerance, part["source_id"].nunique())
        rates = part.groupby("epsilon", sort=True)[f"evaded_fpr_{fpr}"].mean()
        if len(rates) < 2:
            continue
        falls = [(low, high) for low, high in pairwise(rates.index) if rates[high] < rates[low] - allowed]
        curve = ", ".join(f"{epsilon:g}: {rate:.3f}" for epsilon, rate in rates.items())
        detail = f"{join_words(keys[1:])}: success by epsilon {curve}"
        if falls:
            detail += "; a larger budget made the attack weaker, so it is badly tuned or its gradients mislead"
        results.append(check_result("epsilon never hurts", not falls, detail, keys[0]))
    return results


def gradients_present(
    records: pd.DataFrame,
    *,
    limit: float = ZERO_GRADIENT_LIMIT,
    blind: Sequence[str] = (),
    fpr: ReportedFpr = DEFAULT_FPR,
) -> list[CheckResult]:
    """Check that images withstood an attack that had gradients to follow.

    Fooled images that the detector caught and images that were never fooled are looked at apart, since each could
    hide the other.

    Args:
        records: The record table.
        limit: Highest mean share of zero gradients over either kind.
        blind: Attacks that use no gradient of the detector, left out.
        fpr: Which threshold's success decides who withstood.

    Returns:
        A result per detector and attack.
    """
    check_records(records)
    results = []
    for keys, part in records[~records["attack"].isin(blind)].groupby(["detector", "attack"], sort=True):
        withstood = part[~part[f"evaded_fpr_{fpr}"]]
        shares = withstood.groupby("fooled")["zero_gradient_share"].mean()
        caught, unmoved = float(shares.get(True, 0.0)), float(shares.get(False, 0.0))
        passed = max(caught, unmoved) <= limit
        detail = f"{keys[1]}: share of zero gradients {caught:.3f} on caught images, {unmoved:.3f} on images not fooled"
        if not passed:
            detail += f" (limit {limit:g}); the gradients are masked, so the attack had nothing to follow"
        results.append(check_result("gradients present", passed, detail, keys[0]))
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
        results.append(check_result("scores vary", passed, detail, detector))
    return results
