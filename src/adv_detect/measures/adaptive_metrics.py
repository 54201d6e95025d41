"""Success of attacks on classifier and detector together: rates, curves over epsilon, distortions, ranking.

All are computed from the record table of :mod:`adv_detect.measures.adaptive_records`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from adv_detect.algorithms.roc import roc_auc
from adv_detect.errors import DataError
from adv_detect.measures.adaptive_records import (
    FPRS,
    GROUP,
    ReportedFpr,
    check_records,
    common_images,
    lost_images,
    spread_over_budgets,
)
from adv_detect.measures.intervals import wilson_interval

UNION = "union"
WORST = "worst"


def attack_summary(
    records: pd.DataFrame, *, confidence_level: float = 0.95, sparse: Collection[str] = ()
) -> pd.DataFrame:
    """Summarise each attack on each detector, with the worst attack and the union of all.

    Args:
        records: The record table.
        confidence_level: Coverage of the intervals, in (0, 1).
        sparse: Costly attacks that met few of the images; see :func:`common_images`.

    Returns:
        A row per detector, norm, epsilon, criterion and attack, where the attack may be ``worst`` (the single
        strongest one by success at FPR 5 %, named in ``worst_attack``) or ``union``. Both are over the images that
        every attack of the condition met. The union counts an image from the smallest epsilon on at which an attack
        of any epsilon got through with it, and for the untargeted criterion also what targeted attacks got through.
        Columns: ``n``; ``fooled_rate``; per FPR (suffix ``fpr_01``, ``fpr_05``) ``success``, ``success_low``,
        ``success_high`` out of all images, and ``detected`` and ``evaded`` out of the fooled images; medians of ``l2``
        and ``linf`` over images that succeed at FPR 5 %; mean ``gradient_evaluations`` and ``zero_gradient_share``.
        The union has the rates only.
    """
    check_records(records)
    rows: list[dict[str, Any]] = []
    lost = lost_images(records, sparse=sparse)
    for keys, group in spread_over_budgets(records).groupby(GROUP, dropna=False, sort=True):
        condition = dict(zip(GROUP, keys, strict=True))
        singles = [
            {**condition, "attack": attack, **_single_attack(part, confidence_level)}
            for attack, part in group.groupby("attack", sort=True)
        ]
        shared = common_images(group, sparse=sparse)
        shared = shared[~shared["attack"].isin(sparse)]
        compared = [
            {**condition, "attack": WORST, "worst_attack": attack, **_single_attack(part, confidence_level)}
            for attack, part in shared.groupby("attack", sort=True)
        ]
        worst = max(compared, key=lambda row: (row["success_fpr_05"], row["success_fpr_01"]), default=None)
        mine = _of_condition(lost, condition)
        union = {**condition, "attack": UNION, **_rates(mine, confidence_level)} if len(mine) else None
        rows += [*singles, *[row for row in (worst, union) if row is not None]]
    return pd.DataFrame(rows)


def _of_condition(lost: pd.DataFrame, condition: Mapping[str, Any]) -> pd.DataFrame:
    mine = lost
    for name, value in condition.items():
        mine = mine[mine[name].isna() if pd.isna(value) else mine[name] == value]
    return mine.rename(columns={f"lost_fpr_{fpr}": f"evaded_fpr_{fpr}" for fpr in FPRS})


def epsilon_curves(
    records: pd.DataFrame, *, confidence_level: float = 0.95, sparse: Collection[str] = ()
) -> pd.DataFrame:
    """Give success against epsilon, per attack and for the union.

    Args:
        records: The record table.
        confidence_level: Coverage of the intervals.
        sparse: As in :func:`attack_summary`.

    Returns:
        Columns detector, classifier, norm, criterion, attack, epsilon (ascending), n, and ``success``, ``success_low``,
        ``success_high`` with suffixes ``fpr_01`` and ``fpr_05``. Rows without an epsilon are left out.
    """
    summary = attack_summary(records, confidence_level=confidence_level, sparse=sparse)
    rates = [f"success{part}_fpr_{fpr}" for fpr in FPRS for part in ("", "_low", "_high")]
    curves = summary[summary["epsilon"].notna() & (summary["attack"] != WORST)]
    order = ["detector", "classifier", "norm", "criterion", "attack", "epsilon"]
    return curves.sort_values(order)[[*order, "n", *rates]].reset_index(drop=True)


def half_loss_distortion(
    records: pd.DataFrame, *, norm: Literal["l2", "linf"] = "l2", fpr: ReportedFpr = "05"
) -> float | None:
    """Give the distortion at which half of the images are lost.

    Each image counts with the smallest perturbation with which any attack in ``records`` got through; pass the
    records of one detector and criterion. Attacks that use their whole budget overstate it.

    Args:
        records: Record table of one detector.
        norm: How perturbations are measured.
        fpr: False-positive rate of the threshold, ``01`` or ``05``.

    Returns:
        The smallest distortion, in pixel units, at which at least half of the images are lost; None if fewer than
        half are.

    Raises:
        DataError: The records hold more than one detector, classifier or criterion.
    """
    check_records(records)
    for column in ("detector", "classifier", "criterion"):
        if records[column].nunique() != 1:
            raise DataError(f"half_loss_distortion: expected one {column}, got {sorted(records[column].unique())}")
    sizes = records[norm].where(records[f"evaded_fpr_{fpr}"], np.inf)
    smallest = np.sort(sizes.groupby(records["source_id"]).min().to_numpy(dtype=np.float64))
    half = smallest[(len(smallest) - 1) // 2]
    return float(half) if np.isfinite(half) else None


def half_loss_table(records: pd.DataFrame) -> pd.DataFrame:
    """Give :func:`half_loss_distortion` for every detector and criterion, over all attacks.

    Args:
        records: The record table.

    Returns:
        Columns detector, classifier, criterion, n, ``half_loss_l2_fpr_01`` and its likes for linf and FPR 5 % (missing
        where fewer than half of the images are lost).
    """
    rows = []
    for keys, part in records.groupby(["detector", "classifier", "criterion"], sort=True):
        row: dict[str, Any] = dict(zip(("detector", "classifier", "criterion"), keys, strict=True))
        row["n"] = part["source_id"].nunique()
        for fpr in FPRS:
            row[f"half_loss_l2_fpr_{fpr}"] = half_loss_distortion(part, norm="l2", fpr=fpr)
            row[f"half_loss_linf_fpr_{fpr}"] = half_loss_distortion(part, norm="linf", fpr=fpr)
        rows.append(row)
    return pd.DataFrame(rows)


def auc_under_attack(records: pd.DataFrame, natural_scores: Mapping[str, ArrayLike]) -> pd.DataFrame:
    """Measure how well the detector still ranks fooled images above clean ones.

    Args:
        records: The record table.
        natural_scores: Per detector, its scores (logits) of clean images, ``(M,)``.

    Returns:
        A row per detector, norm, epsilon, criterion and attack: ``auc`` (missing if no image was fooled),
        ``n_adversarial``, ``n_natural``.

    Raises:
        DataError: A detector has no natural scores.
    """
    check_records(records)
    absent = sorted(set(records["detector"]) - set(natural_scores))
    if absent:
        raise DataError(f"natural_scores: expected scores for every detector, missing {absent}")
    rows = []
    for keys, part in records.groupby([*GROUP, "attack"], dropna=False, sort=True):
        row: dict[str, Any] = dict(zip([*GROUP, "attack"], keys, strict=True))
        natural = np.asarray(natural_scores[row["detector"]], dtype=np.float64)
        attacked = part.loc[part["fooled"], "detector_score"].to_numpy(dtype=np.float64)
        rows.append({**row, "auc": _auc(natural, attacked), "n_adversarial": len(attacked), "n_natural": len(natural)})
    return pd.DataFrame(rows)


def _auc(natural: np.ndarray[Any, Any], attacked: np.ndarray[Any, Any]) -> float | None:
    if not len(attacked):
        return None
    labels = np.concatenate([np.zeros(len(natural), dtype=bool), np.ones(len(attacked), dtype=bool)])
    return roc_auc(np.concatenate([natural, attacked]), labels)


def _single_attack(part: pd.DataFrame, level: float) -> dict[str, Any]:
    through = part[part["evaded_fpr_05"]]
    return {
        **_rates(part, level),
        "median_l2": through["l2"].median(),
        "median_linf": through["linf"].median(),
        "gradient_evaluations": part["gradient_evaluations"].mean(),
        "zero_gradient_share": part["zero_gradient_share"].mean(),
    }


def _rates(images: pd.DataFrame, level: float) -> dict[str, Any]:
    """Compute the rates of a table with a row per image."""
    count, fooled = len(images), int(images["fooled"].sum())
    rates: dict[str, Any] = {"n": count, "fooled_rate": fooled / count}
    for fpr in FPRS:
        through = int(images[f"evaded_fpr_{fpr}"].sum())
        low, high = wilson_interval(through, count, confidence_level=level)
        evaded = through / fooled if fooled else None
        rates |= {
            f"success_fpr_{fpr}": through / count,
            f"success_low_fpr_{fpr}": low,
            f"success_high_fpr_{fpr}": high,
            f"detected_fpr_{fpr}": None if evaded is None else 1 - evaded,
            f"evaded_fpr_{fpr}": evaded,
        }
    return rates
