"""Images lost against the steps of an attack: whether more steps would still gain something."""

from __future__ import annotations

from typing import Any

import pandas as pd

from adv_detect.measures.adaptive_records import GROUP
from adv_detect.measures.intervals import wilson_interval

STEP_COUNTS = (1, 2, 5, 10, 25, 50, 100, 200, 400, 1000, 2000, 5000, 10_000)
"""Steps at which the share of lost images is given, up to those that were taken."""
STEP_COLUMNS = (*GROUP, "attack", "steps", "n", "lost", "lost_low", "lost_high", "late")


def loss_by_steps(records: pd.DataFrame, *, confidence_level: float = 0.95) -> pd.DataFrame:
    """Give the share of images lost at FPR 5 % against the steps of an attack, from one run of it.

    Args:
        records: The record table with ``first_success`` (steps after which an image first got through, negative where
            it never did) and ``total_steps`` (all steps of an image that withstands, restarts included; missing for
            attacks that do not count).
        confidence_level: Coverage of the intervals.

    Returns:
        A row per detector, norm, epsilon, criterion, attack and number of steps up to the total: n, ``lost`` with
        ``lost_low`` and ``lost_high``, and ``late``, the share of all images that the second half of the steps gained.
    """
    rows: list[dict[str, Any]] = []
    counted = records[records["total_steps"].notna()]
    for keys, part in counted.groupby([*GROUP, "attack"], dropna=False, sort=True):
        condition = dict(zip([*GROUP, "attack"], keys, strict=True))
        total = int(part["total_steps"].iloc[0])
        through = part.loc[part["evaded_fpr_05"] & (part["first_success"] >= 0), "first_success"]
        late = float((through > total / 2).sum()) / len(part)
        for steps in sorted({steps for steps in STEP_COUNTS if steps < total} | {total}):
            lost = int((through <= steps).sum())
            low, high = wilson_interval(lost, len(part), confidence_level=confidence_level)
            share = {"n": len(part), "lost": lost / len(part), "lost_low": low, "lost_high": high, "late": late}
            rows.append({**condition, "steps": steps, **share})
    return pd.DataFrame(rows, columns=list(STEP_COLUMNS))
