"""Comparison of all detectors: a row per configuration, means over seeds, differences to the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adv_detect.jobs.joint_models import COSTS
from adv_detect.measures.benign_changes import worst_change
from adv_detect.measures.bootstrap import AucBootstrap
from adv_detect.measures.detector_keys import CLASS, FEATURES, SUMMARY_ROWS
from adv_detect.names import (
    BOTH_CRITERIA,
    FLOAT,
    LEARNED_FROM_ALL,
    MARGIN,
    NATURAL,
    NO_CRITERION,
    REFERENCE,
    TESTED_FORMS,
)

Row: TypeAlias = dict[str, Any]
RATES = ("01", "05")
"""Nominal false-positive rates, as in the names of columns, of which shares found and realised rates are given."""
OF_CONFIGURATION = ["configuration", "trained_criterion"]


def compared_detectors(metrics: pd.DataFrame) -> pd.DataFrame:
    """Choose the rows of the detectors that are compared.

    Args:
        metrics: Result of `metric_table`.

    Returns:
        Rows of the margin and of detectors that learned from everything; of a configuration the detectors for both
        criteria where there are such, else those for each, on the criterion that they are for.
    """
    whole = metrics["trained_on"].isin([*LEARNED_FROM_ALL, REFERENCE]) | (metrics["configuration"] == MARGIN)
    both = metrics.loc[whole & (metrics["trained_criterion"] == BOTH_CRITERIA), "configuration"].unique()
    meant = metrics["trained_criterion"].isin([BOTH_CRITERIA, NO_CRITERION])
    own = (metrics["trained_criterion"] == metrics["criterion"]) & ~metrics["configuration"].isin(both)
    return metrics[whole & (meant | own)]


def compared_rows(metrics: pd.DataFrame, *, aims_at: str = CLASS) -> pd.DataFrame:
    """Choose the rows whose areas are averaged: one per compared detector, attack and criterion.

    Args:
        metrics: Result of `metric_table`.
        aims_at: ``class`` or ``features``: what the attacks aim at.

    Returns:
        Rows of attacks that had a success, images as attacked.
    """
    rows = compared_detectors(metrics)
    single = ~rows["attack"].isin([*SUMMARY_ROWS, NATURAL]) & (rows["variant"] == FLOAT) & rows["auc"].notna()
    found: pd.DataFrame = rows[single & (rows["aims_at"] == aims_at)]
    return found


def measured_leaderboard(
    metrics: pd.DataFrame,
    resamples: pd.DataFrame,
    benign: pd.DataFrame,
    costs: pd.DataFrame,
    *,
    confidence_level: float,
) -> pd.DataFrame:
    """Compare all configurations.

    Args:
        metrics: Result of `metric_table`.
        resamples: Resamples of the mean area by detector and form, as `measure_scores` gives them.
        benign: Result of `benign_table`.
        costs: A row per detector: ``detector`` and the columns `COSTS`.
        confidence_level: Coverage of the intervals.

    Returns:
        A row per configuration (and criterion, where none learned from both), best first by the mean of the areas of
        the three forms: ``configuration``, ``kind``, ``trained_criterion``, ``learns_from``, ``seeds``. Per form:
        ``<form>_attacks`` (pairs of attack and criterion), ``<form>_auc_mean``, ``_auc_worst``, ``_worst_attack``,
        ``_behind`` (the best mean area minus the own), ``_behind_low``, ``_behind_high`` (paired bootstrap; beyond
        chance where the interval leaves out 0), ``_tpr_01_mean``, ``_tpr_01_worst`` and so on: figures are means over
        seeds, the worst is the least of these. ``features_auc_mean`` and ``_worst`` for attacks that aim at the
        features. ``fpr_01``, ``fpr_05``: realised on natural test images. ``benign_fpr_05``, ``benign_change``: most
        false alarms on a benign change, first seed. ``attacks``, ``above_margin``: pairs, and how many of them are
        found better than by the margin, beyond the paired interval with every seed. The columns `COSTS`.
    """
    every = compared_detectors(metrics)
    aimed = {aim: compared_rows(metrics, aims_at=aim) for aim in (CLASS, FEATURES)}
    costs = costs.set_index("detector")
    rows = [
        _description(part)
        | _of_forms(_same(aimed[CLASS], key))
        | _on_features(_same(aimed[FEATURES], key))
        | _false_alarms(part, benign)
        | _above_margin(_same(aimed[CLASS], key))
        | _cost(part, costs)
        for key, part in every.groupby(OF_CONFIGURATION, sort=False)
    ]
    table = _with_differences(pd.DataFrame(rows), aimed[CLASS], resamples, confidence_level)
    means = table[[f"{form}_auc_mean" for form in TESTED_FORMS]].mean(axis=1)
    return table.iloc[np.argsort(-means.fillna(-1).to_numpy(), kind="stable")].reset_index(drop=True)


def beyond_chance(row: Mapping[str, Any], form: str) -> bool:
    """Tell whether the best detector of a form is ahead of this one beyond the paired interval."""
    return bool(row[f"{form}_behind_low"] > 0)


def _same(rows: pd.DataFrame, key: Sequence[Any]) -> pd.DataFrame:
    found: pd.DataFrame = rows[(rows[OF_CONFIGURATION[0]] == key[0]) & (rows[OF_CONFIGURATION[1]] == key[1])]
    return found


def _description(rows: pd.DataFrame) -> Row:
    first = rows.iloc[0]
    attacks = first["trained_criterion"] != NO_CRITERION
    learns = "attacks" if attacks else "nothing" if first["configuration"] == MARGIN else str(first["trained_on"])
    names = ("configuration", "kind", "trained_criterion")
    return {name: first[name] for name in names} | {"learns_from": learns, "seeds": int(rows["seed"].nunique())}


def _of_forms(rows: pd.DataFrame) -> Row:
    found: Row = {}
    for form in TESTED_FORMS:
        part = rows[rows["form"] == form]
        aucs = _means_over_seeds(part, "auc")
        worst = "/".join(aucs.index[int(aucs.to_numpy().argmin())]) if len(aucs) else ""
        found |= {f"{form}_attacks": len(aucs)} | _mean_and_worst(f"{form}_auc", aucs) | {f"{form}_worst_attack": worst}
        for rate in RATES:
            found |= _mean_and_worst(f"{form}_tpr_{rate}", _means_over_seeds(part, f"tpr_at_fpr_{rate}"))
    return found


def _on_features(rows: pd.DataFrame) -> Row:
    return _mean_and_worst("features_auc", _means_over_seeds(rows, "auc"))


def _means_over_seeds(rows: pd.DataFrame, value: str) -> pd.Series[float]:
    """Average a figure over seeds, by attack and criterion; empty where it was not measured."""
    if value not in rows.columns:
        return pd.Series(dtype=float)
    return rows.groupby(["attack", "criterion"], sort=False)[value].mean().dropna()


def _mean_and_worst(name: str, values: pd.Series[float]) -> Row:
    """Mean and least of some figures; NaN where there is none."""
    return {f"{name}_mean": float(values.mean()), f"{name}_worst": float(values.min())}


def _false_alarms(rows: pd.DataFrame, benign: pd.DataFrame) -> Row:
    """Realised rates, mean over seeds, and the benign change with most false alarms."""
    natural = rows[rows["variant"] == FLOAT].drop_duplicates("detector")
    found: Row = {f"fpr_{rate}": float(natural[f"fpr_{rate}"].mean()) for rate in RATES if f"fpr_{rate}" in natural}
    measured = set(benign["detector"]) if len(benign) else set()
    key = next((str(one) for one in natural["detector"] if one in measured), "")
    worst = worst_change(benign, key) if key and "fpr_05" in benign else None
    value, change = (worst["fpr_05"], str(worst["change"])) if worst else (float("nan"), "")
    return found | {"benign_fpr_05": float(value), "benign_change": change}


def _above_margin(rows: pd.DataFrame) -> Row:
    """Count attacks, and those on which every seed beats the margin beyond the paired interval."""
    if "margin_gain_low" not in rows.columns or rows.empty or rows["configuration"].iloc[0] == MARGIN:
        return {"attacks": rows.groupby(["attack", "criterion"]).ngroups, "above_margin": float("nan")}
    least = rows.groupby(["attack", "criterion"])["margin_gain_low"].min()
    return {"attacks": len(least), "above_margin": float((least > 0).sum())}


def _cost(rows: pd.DataFrame, costs: pd.DataFrame) -> Row:
    key = next((one for one in rows["detector"].unique() if one in costs.index), None)
    return {name: costs.loc[key, name] if key is not None else float("nan") for name in COSTS}


def _with_differences(
    table: pd.DataFrame, rows: pd.DataFrame, resamples: pd.DataFrame, confidence_level: float
) -> pd.DataFrame:
    """Add by how much the best mean area of each form is ahead, with a paired interval."""
    keys = rows.drop_duplicates("detector").set_index("detector")[OF_CONFIGURATION]
    drawn = resamples.join(keys, on="detector").groupby([*OF_CONFIGURATION, "form", "resample"])["auc"].mean()
    table, bootstrap = table.copy(), AucBootstrap(resamples=0, confidence_level=confidence_level)
    for form in TESTED_FORMS:
        areas = [_drawn(drawn, (*row, form)) for row in table[OF_CONFIGURATION].itertuples(index=False)]
        means = table[f"{form}_auc_mean"]
        best = int(means.fillna(-1).to_numpy().argmax())
        differences = [bootstrap.interval(areas[best] - one) for one in areas]
        table[f"{form}_behind"] = means.iloc[best] - means
        table[f"{form}_behind_low"] = [low for low, _ in differences]
        table[f"{form}_behind_high"] = [high for _, high in differences]
    return table


def _drawn(drawn: pd.Series[float], key: tuple[Any, ...]) -> NDArray[np.float64]:
    """Resamples of one configuration and form; a single NaN where there is none."""
    found: NDArray[np.float64] = drawn.loc[key].to_numpy(dtype=float) if key in drawn.index else np.full(1, np.nan)
    return found
