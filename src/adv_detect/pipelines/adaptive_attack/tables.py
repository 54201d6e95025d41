"""Nodes that turn records of adaptive attacks into tables and metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from adv_detect.algorithms.detectors import StoredDetector
from adv_detect.algorithms.representatives import Representatives
from adv_detect.jobs.detectors import restore
from adv_detect.measures.adaptive_comparisons import is_unbounded
from adv_detect.measures.adaptive_metrics import (
    UNION,
    WORST,
    attack_summary,
    auc_under_attack,
    epsilon_curves,
    half_loss_table,
)
from adv_detect.measures.adaptive_steps import loss_by_steps
from adv_detect.measures.intervals import wilson_interval
from adv_detect.params import AdaptiveAttackParams, AdversarialGenerationParams, EvaluationParams
from adv_detect.pipelines.adaptive_attack.attacking import AttackSetting
from adv_detect.pipelines.adaptive_attack.checking import attacks_that_follow, check_attacks, with_reliability
from adv_detect.pipelines.adaptive_attack.clean_costs import clean_cost, with_costs
from adv_detect.pipelines.adaptive_attack.clean_scores import score_naturals
from adv_detect.pipelines.adaptive_attack.layer_matching import (
    LAYER_MATCHING,
    attacked_alike,
    judge_matched,
    matching_table,
    with_matching,
)
from adv_detect.sharding import ShardStore

TABLES = ("summary", "curves", "steps", "half_loss", "auc", "checks", "reference", "hardening")
"""Names of the tables, in the order in which they are given."""
PASS_NAMES = {"probability below 0.5": "probability_05", "FPR 5 %": "fpr_05", "FPR 1 %": "fpr_01"}
SUMMARY_METRICS = ("success_fpr_01", "success_fpr_05", "evaded_fpr_05", "fooled_rate")


def measure_adaptive(
    adaptive_records: pd.DataFrame,
    detectors: ShardStore,
    hardened_detectors: ShardStore,
    matched_records: pd.DataFrame,
    attack_setting: AttackSetting,
    adaptive_attack: AdaptiveAttackParams,
    adversarial_generation: AdversarialGenerationParams,
    evaluation: EvaluationParams,
) -> dict[str, pd.DataFrame]:
    """Measure what the attacks achieved and how far the figures may be believed.

    Args:
        adaptive_records: One row per image and condition.
        detectors: The trained detectors.
        hardened_detectors: The detectors after adversarial training.
        matched_records: Records of the images whose activations were moved among those of clean ones.
        attack_setting: Network, images and all else that the attacks shared.
        adaptive_attack: The attacks.
        adversarial_generation: The ordinary attacks, for the cost of hardening.
        evaluation: Level of confidence.

    Returns:
        The tables `TABLES`. All but ``reference`` leave out attacks in the published form, all but ``checks`` budgets
        that bound nothing. Layer matching counts as one more attack in ``summary``, ``curves``, ``half_loss`` and
        ``checks``. ``summary``, ``curves``,
        ``half_loss`` and ``auc`` are those of :mod:`adv_detect.measures.adaptive_metrics`, ``summary`` with the
        columns ``matched`` and ``matched_passed`` (see
        :func:`~adv_detect.pipelines.adaptive_attack.layer_matching.matching_table`), ``kind`` of the detector,
        ``rounds`` of its hardening, ``clean_fpr_05`` (realised on ``n_clean`` clean test images), ``reliable`` and
        ``reasons``; ``steps`` that of :mod:`adv_detect.measures.adaptive_steps`;
        ``checks`` has a row per sanity check; ``reference`` the three published figures in both forms; ``hardening`` a
        row before and one after per hardened detector.
    """
    level, activations = evaluation.confidence_level, attack_setting.activations
    representatives, bounds = attack_setting.representatives, attack_setting.network.spec.bounds
    stored = _stored_detectors(detectors, hardened_detectors, adaptive_records, representatives)
    naturals = {
        key: score_naturals(activations, "test", one, representatives)["score"].to_numpy()
        for key, one in stored.items()
    }
    records = adaptive_records[adaptive_records["form"] == "correct"]
    reference = reference_figures(adaptive_records, confidence_level=level)
    if records.empty:
        return dict.fromkeys(TABLES, pd.DataFrame()) | {"reference": reference}
    sparse = [*attacks_that_follow("queries", adaptive_attack), LAYER_MATCHING]
    matched = attacked_alike(matched_records, records)
    checks = check_attacks(_joined(records, matched), adaptive_attack, naturals, bounds=bounds)
    bounded = records[~is_unbounded(records, bounds[1] - bounds[0])]
    records = bounded if len(bounded) else records
    every = _joined(records, matched)
    summary = attack_summary(every, confidence_level=level, sparse=sparse)
    summary = with_matching(summary, matching_table(matched_records, confidence_level=level))
    cost = [
        {"detector": key, **clean_cost(one, activations, representatives, adversarial_generation)}
        for key, one in stored.items()
    ]
    return {
        "summary": with_reliability(with_costs(summary, stored, cost), checks),
        "curves": epsilon_curves(every, confidence_level=level, sparse=sparse),
        "steps": loss_by_steps(records, confidence_level=level),
        "half_loss": half_loss_table(every),
        "auc": auc_under_attack(records, naturals),
        "checks": pd.DataFrame([vars(check) for check in checks]),
        "reference": reference,
        "hardening": hardening_table(records, pd.DataFrame(cost), hardened_detectors, confidence_level=level),
    }


def record_matched(
    matched_adversarials: ShardStore,
    attack_setting: AttackSetting,
    adaptive_records: pd.DataFrame,
    detectors: ShardStore,
    hardened_detectors: ShardStore,
) -> pd.DataFrame:
    """Show the images of layer matching to every detector that was attacked.

    Args:
        matched_adversarials: The images whose activations were moved among those of clean ones.
        attack_setting: Network, images and all else that the attacks shared.
        adaptive_records: Records of the attacks, for the names of the detectors.
        detectors: The trained detectors.
        hardened_detectors: The detectors after adversarial training.

    Returns:
        Their records, see :func:`~adv_detect.pipelines.adaptive_attack.layer_matching.judge_matched`.
    """
    attacked = _stored_detectors(detectors, hardened_detectors, adaptive_records, attack_setting.representatives)
    return judge_matched(matched_adversarials, attack_setting, attacked)


def store_tables(adaptive_tables: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, ...]:
    """Give the tables in order, twice: for parquet and for CSV.

    Args:
        adaptive_tables: The tables by name.

    Returns:
        The tables `TABLES`, twice.
    """
    ordered = [adaptive_tables[name] for name in TABLES]
    return (*ordered, *ordered)


def adaptive_metrics(adaptive_tables: dict[str, pd.DataFrame]) -> dict[str, float]:
    """Name the figures for the tracking server.

    Args:
        adaptive_tables: The tables by name.

    Returns:
        ``adaptive/<detector>/<criterion>/<norm>-<epsilon>/<union or worst>/<figure>``, the number of unreliable
        detectors, and ``adaptive/<detector>/<cost>`` for what hardening cost.
    """
    summary, hardening = adaptive_tables["summary"], adaptive_tables["hardening"]
    values: dict[str, float] = {}
    if summary.empty:
        return values
    for row in summary[summary["attack"].isin([UNION, WORST])].to_dict("records"):
        size = "free" if np.isnan(row["epsilon"]) else f"{row['epsilon']:.4g}"
        judge = "" if row["classifier"] == "network" else f"{row['classifier']}/"
        place = f"adaptive/{row['detector']}/{judge}{row['criterion']}/{row['norm']}-{size}/{row['attack']}"
        values |= {f"{place}/{name}": float(row[name]) for name in SUMMARY_METRICS if pd.notna(row[name])}
    values |= _single_figures(adaptive_tables)
    reliable = summary.groupby("detector")["reliable"].all()
    values["adaptive/unreliable_detectors"] = float((~reliable).sum())
    for row in hardening.to_dict("records"):
        figures = {name: row[name] for name in ("fpr_01", "fpr_05", "macro_auc") if pd.notna(row[name])}
        values |= {f"adaptive/{row['detector']}/{name}": float(value) for name, value in figures.items()}
    return values


def _single_figures(tables: dict[str, pd.DataFrame]) -> dict[str, float]:
    """Half-loss distortions, AUC under attack, and the three published figures."""
    values: dict[str, float] = {}
    for row in tables["half_loss"].to_dict("records"):
        values |= {
            f"adaptive/{row['detector']}/{row['criterion']}/{name}": float(value)
            for name, value in row.items()
            if str(name).startswith("half_loss") and pd.notna(value) and row["classifier"] == "network"
        }
    for row in tables["auc"].dropna(subset="auc").to_dict("records"):
        size = "free" if np.isnan(row["epsilon"]) else f"{row['epsilon']:.4g}"
        place = f"adaptive/{row['detector']}/{row['criterion']}/{row['norm']}-{size}/{row['attack']}"
        values[f"{place}/auc"] = float(row["auc"])
    for row in tables["reference"].to_dict("records"):
        place = (
            f"adaptive/{row['detector']}/{row['criterion']}/{row['attack']}/{row['form']}/{PASS_NAMES[row['passes']]}"
        )
        figures = {name: row[name] for name in ("success", "detected", "evaded", "lost")}
        values |= {f"{place}/{name}": float(value) for name, value in figures.items() if pd.notna(value)}
    return values


def reference_figures(records: pd.DataFrame, *, confidence_level: float) -> pd.DataFrame:
    """Give the three published figures for the attacks that exist in the published form, and for their correct form.

    Args:
        records: All records.
        confidence_level: Coverage of the intervals.

    Returns:
        A row per detector, attack, norm, epsilon, criterion: method, form, ``passes`` (how the detector passes an
        image), n, ``success`` (the class was changed), ``detected`` and ``evaded`` out of these, each with ``_low``
        and ``_high``, and ``lost`` (class changed and passed, out of all images). Both forms start from the same
        images and are judged at the published threshold, probability 0.5, and at FPR 5 %, the correct form, which
        aims at the latter, also at FPR 1 %.
    """
    methods = set(records.loc[records["form"] == "reference", "method"])
    compared = records[records["method"].isin(methods) & (records["role"] == "white_box")]
    judged = {
        "reference": {"probability below 0.5": "evaded_reference", "FPR 5 %": "evaded_fpr_05"},
        "correct": {
            "probability below 0.5": "evaded_reference",
            "FPR 5 %": "evaded_fpr_05",
            "FPR 1 %": "evaded_fpr_01",
        },
    }
    keys = ["detector", "method", "form", "attack", "norm", "epsilon", "criterion"]
    rows = []
    for values, part in compared.groupby(keys, dropna=False, sort=True):
        condition = dict(zip(keys, values, strict=True))
        for passes, column in judged[str(condition["form"])].items():
            rows.append({**condition, "passes": passes, **_three_figures(part, column, confidence_level)})
    return pd.DataFrame(rows)


def _three_figures(part: pd.DataFrame, column: str, level: float) -> dict[str, Any]:
    count, fooled, evaded = len(part), int(part["fooled"].sum()), int(part[column].sum())
    figures: dict[str, Any] = {"n": count, "n_fooled": fooled, "median_l2": part.loc[part["fooled"], "l2"].median()}
    shares = {"success": (fooled, count), "detected": (fooled - evaded, fooled), "evaded": (evaded, fooled)}
    for name, (hits, total) in (shares | {"lost": (evaded, count)}).items():
        low, high = wilson_interval(hits, total, confidence_level=level) if total else (np.nan, np.nan)
        figures |= {name: hits / total if total else np.nan, f"{name}_low": low, f"{name}_high": high}
    return figures


def hardening_table(
    records: pd.DataFrame, cost: pd.DataFrame, hardened: ShardStore, *, confidence_level: float = 0.95
) -> pd.DataFrame:
    """Compare each hardened detector with what it was before.

    Args:
        records: Records without those in the published form.
        cost: Per detector what it does on clean images and ordinary attacks.
        hardened: The hardened detectors.
        confidence_level: Coverage of the intervals.

    Returns:
        Two rows per norm, epsilon, criterion and hardened detector, ``when`` before and after: the union over the
        attacks and images that both met (``attacks``), ``n``, ``success_fpr_01``, ``success_fpr_05``, and the columns
        of ``cost``.
    """
    rows = []
    for key in hardened:
        before = str(hardened.metadata(key)["hardened_from"])
        after = records[records["detector"] == key]
        met = sorted(set(after["attack"]))
        images = set(after["source_id"]) & set(records.loc[records["detector"] == before, "source_id"])
        for when, name in (("before", before), ("after", key)):
            both = records["attack"].isin(met) & records["source_id"].isin(images)
            mine = records[(records["detector"] == name) & both]
            if mine.empty:
                continue
            union = attack_summary(mine, confidence_level=confidence_level)
            union = union[union["attack"] == UNION].drop(columns=["attack", "detector"])
            for row in union.to_dict("records"):
                wanted = ("norm", "epsilon", "criterion", "n", "fooled_rate", "success_fpr_01", "success_fpr_05",
                          "success_low_fpr_05", "success_high_fpr_05")  # fmt: skip
                figures = {name: row[name] for name in wanted}
                rows.append({"hardened": before, "when": when, "detector": name, "attacks": ", ".join(met), **figures})
    table = pd.DataFrame(rows)
    if table.empty:
        return pd.DataFrame(columns=["hardened", "when", "detector", *cost.columns.drop("detector")])
    order = ["hardened", "norm", "epsilon", "criterion"]
    merged = table.merge(cost, on="detector", how="left")
    return merged.sort_values([*order, "when"], ascending=[*[True] * len(order), False], ignore_index=True)


def _joined(records: pd.DataFrame, matched: pd.DataFrame) -> pd.DataFrame:
    """Put the records of matched images below those of the attacks."""
    return pd.concat([records, matched], ignore_index=True) if len(matched) else records


def _stored_detectors(
    detectors: ShardStore, hardened: ShardStore, records: pd.DataFrame, representatives: Representatives
) -> dict[str, StoredDetector]:
    """Restore the detectors that were attacked."""
    return {
        str(key): restore(hardened if key in hardened else detectors, str(key), representatives)
        for key in sorted(records["detector"].unique())
    }
