"""Records of attacks on classifier and detector together, and the images that are lost in them.

The record table has the columns of ``RECORD_COLUMNS``: one row per image, detector, attack, norm, epsilon and
criterion. ``epsilon`` is missing for attacks that search for the smallest perturbation. ``classifier`` says what names
the class: the network, or the nearest medoid. Adaptive success means misclassified (for a targeted attack: as the
target) **and** passed by the detector; an image is lost if any attack reaches that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from adv_detect.errors import DataError

ReportedFpr = Literal["01", "05"]
FPRS: tuple[ReportedFpr, ...] = ("01", "05")
GROUP = ["detector", "classifier", "norm", "epsilon", "criterion"]
RECORD_COLUMNS = (
    "source_id",
    *GROUP,
    "attack",
    "fooled",
    "evaded_fpr_01",
    "evaded_fpr_05",
    "detector_score",
    "l2",
    "linf",
    "gradient_evaluations",
    "zero_gradient_share",
)
BUDGET_TOLERANCE = 1e-6
"""Relative slack with which a perturbation counts as within an epsilon."""


def check_records(records: pd.DataFrame) -> None:
    """Check the form of a record table.

    Args:
        records: Columns ``RECORD_COLUMNS``.

    Raises:
        DataError: No rows, a column is missing, an image occurs twice under one condition, or one counts as evading
            without being fooled.
    """
    missing = sorted(set(RECORD_COLUMNS) - set(records.columns))
    if missing:
        raise DataError(f"adaptive records: expected columns {sorted(RECORD_COLUMNS)}, missing {missing}")
    if records.empty:
        raise DataError("adaptive records: expected at least one row, got none")
    repeated = int(records.duplicated(["source_id", "attack", *GROUP]).sum())
    if repeated:
        raise DataError(f"adaptive records: expected one row per image and condition, got {repeated} repeated rows")
    unfounded = int((~records["fooled"] & (records["evaded_fpr_01"] | records["evaded_fpr_05"])).sum())
    if unfounded:
        raise DataError(f"adaptive records: expected evading rows to be fooled, got {unfounded} that are not")


def spread_over_budgets(records: pd.DataFrame) -> pd.DataFrame:
    """Count attacks without a budget at every budget that other attacks had.

    An image of such an attack succeeds at an epsilon where its perturbation is no larger. Where no attack of the
    same detector, norm and criterion had a budget, its rows stay as they are.

    Args:
        records: The record table.

    Returns:
        A new table; rows without epsilon are replaced by one row per epsilon.
    """
    free = records[records["epsilon"].isna()]
    if free.empty:
        return records
    keys = ["detector", "classifier", "norm", "criterion"]
    budgets = records.loc[records["epsilon"].notna(), GROUP].drop_duplicates()
    spread = free.drop(columns="epsilon").merge(budgets, on=keys, how="left")
    size = spread["l2"].where(spread["norm"] == "l2", spread["linf"])
    limit = spread["epsilon"].astype(float).fillna(np.inf)
    within = size <= limit * (1 + BUDGET_TOLERANCE)
    for column in ("fooled", "evaded_fpr_01", "evaded_fpr_05"):
        spread[column] &= within
    return pd.concat([records[records["epsilon"].notna()], spread], ignore_index=True)[list(records.columns)]


def common_images(group: pd.DataFrame, *, sparse: Collection[str] = ()) -> pd.DataFrame:
    """Keep the images that every attack of a table met, so that its attacks can be compared.

    Args:
        group: Records of one condition.
        sparse: Attacks that need not have met an image; where there are no others they count like any.

    Returns:
        The rows of these images.
    """
    needed = group[~group["attack"].isin(sparse)]
    needed = needed if len(needed) else group
    met = needed.groupby("source_id")["attack"].nunique()
    return group[group["source_id"].isin(met.index[met == needed["attack"].nunique()])]


def lost_images(records: pd.DataFrame, *, sparse: Collection[str] = ()) -> pd.DataFrame:
    """Tell which images any attack got through with.

    Args:
        records: The record table.
        sparse: Attacks that need not have met an image, and count where they did.

    Returns:
        A row per detector, classifier, norm, epsilon, criterion and image that all attacks of that condition met:
        ``fooled``, ``lost_fpr_01``, ``lost_fpr_05``, bool. An image counts from the smallest epsilon on that the
        perturbation of any attack keeps, and targeted successes count as untargeted ones.
    """
    check_records(records)
    flags = ["fooled", *[f"evaded_fpr_{fpr}" for fpr in FPRS]]
    parts = []
    for keys, group in spread_over_budgets(records).groupby(GROUP, dropna=False, sort=True):
        condition: dict[str, Any] = {name: value for name, value in zip(GROUP, keys, strict=True)}
        met = common_images(group, sparse=sparse)["source_id"].drop_duplicates()
        reached = _within_reach(records, condition)
        found = reached.groupby("source_id")[flags].any().reindex(met, fill_value=False)
        parts.append(found.reset_index().assign(**condition))
    lost = pd.concat(parts, ignore_index=True)[[*GROUP, "source_id", *flags]]
    return lost.rename(columns={f"evaded_fpr_{fpr}": f"lost_fpr_{fpr}" for fpr in FPRS})


def _within_reach(records: pd.DataFrame, condition: Mapping[str, Any]) -> pd.DataFrame:
    """Records whose perturbation an attacker of this condition may use, whatever attack and epsilon they are from."""
    criteria = {str(condition["criterion"])} | ({"targeted"} if condition["criterion"] == "untargeted" else set())
    same = (records["detector"] == condition["detector"]) & (records["classifier"] == condition["classifier"])
    mine = records[same & records["criterion"].isin(criteria)]
    within = mine["norm"] == condition["norm"]
    if pd.notna(condition["epsilon"]):
        limit = float(condition["epsilon"]) * (1 + BUDGET_TOLERANCE)
        within = (within & (mine["epsilon"] <= limit)) | (mine[str(condition["norm"])] <= limit)
    return cast(pd.DataFrame, mine[within])
