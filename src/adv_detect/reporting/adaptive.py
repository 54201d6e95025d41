"""The section of the report on attackers who know the detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from adv_detect.measures.adaptive_metrics import UNION, WORST
from adv_detect.names import BOTH_SIMILARITIES
from adv_detect.reporting import adaptive_sentences as sentences
from adv_detect.reporting.blocks import Block, Card, Cards, Figure, Fold, Note, Section, Table, Text
from adv_detect.sharding import ShardStore

TITLE = "If the attacker knows the detector"
CONDITION = ["detector", "classifier", "criterion", "norm", "epsilon"]
MATCHED = ("matched", "matched_low", "matched_high")
CHECK_COLUMNS = ["detector", "name", "passed", "detail"]


def adaptive_section(
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, bytes],
    hardened: ShardStore,
    substitute: Mapping[str, Any],
) -> Section:
    """Write the section on attacks on network and detector together.

    Args:
        tables: The tables of the pipeline by name.
        figures: Drawn figures by name.
        hardened: The hardened detectors, with what their adversarial training saw.
        substitute: Seed and accuracy of the attacker's own network; empty where there is none.

    Returns:
        The section.
    """
    blocks: list[Block] = [Text(sentences.OPENING)]
    if len(tables["summary"]):
        blocks += [*_verdicts(tables["summary"]), *_overview(tables["summary"]), *_union(tables["summary"])]
        blocks += [*_figures(figures), *_steps(tables["steps"])]
        blocks += [_per_attack(tables["summary"]), *_distortion(tables["half_loss"])]
        blocks += [_ranking(tables["auc"]), _checks(tables["checks"])]
    blocks += [*_reference(tables["reference"]), *_hardening(tables["hardening"], hardened)]
    return Section(TITLE, [*blocks, _substitute(substitute), Note(sentences.LIMITS, "caution")])


def _verdicts(summary: pd.DataFrame) -> list[Block]:
    """A card per detector where most is lost, and what must not be believed."""
    cards, notes = [], []
    union = summary[(summary["attack"] == UNION) & (summary["classifier"] != BOTH_SIMILARITIES)]  # of gates for pairs
    for detector, rows in union.groupby("detector", sort=True):
        row = rows.sort_values("success_fpr_05").iloc[-1]
        interval = f"{row['success_low_fpr_05']:.1%} to {row['success_high_fpr_05']:.1%}"
        cards.append(
            Card(
                f"{row['success_fpr_05']:.1%}",
                f"lost: {detector}" if row["reliable"] else f"lost (unreliable): {detector}",
                f"n = {int(row['n'])}, {interval}, {_condition(row)}",
            )
        )
        if not row["reliable"]:
            notes.append(Note(f"**Unreliable: `{detector}`.** {sentences.UNRELIABLE} {row['reasons']}", "caution"))
    return [Cards(cards), *notes]


def _condition(row: pd.Series) -> str:
    size = "smallest perturbation" if np.isnan(row["epsilon"]) else f"{row['norm']} up to {row['epsilon']:.3g}"
    return f"{row['criterion']}, {size}"


def _overview(summary: pd.DataFrame) -> list[Block]:
    """A row per detector and a column per budget: what is lost to any attack, beside what the detector costs."""
    union = summary[(summary["attack"] == UNION) & summary["epsilon"].notna()]
    union = union[(union["criterion"] == "untargeted") & (union["classifier"] == "network")]
    if union.empty:
        return []
    shares = zip(*(union[f"success{part}_fpr_05"] for part in ("", "_low", "_high")), union["n"], strict=True)
    cells = [f"{_share(value, low, high)} [{int(count)}]" for value, low, high, count in shares]
    budgets = [f"{norm} {epsilon:.3g}" for norm, epsilon in zip(union["norm"], union["epsilon"], strict=True)]
    what = [
        f"{kind}, hardened" if rounds else kind for kind, rounds in zip(union["kind"], union["rounds"], strict=True)
    ]
    flagged = [f"{rate:.1%} [{count}]" for rate, count in zip(union["clean_fpr_05"], union["n_clean"], strict=True)]
    table = union.assign(cell=cells, budget=budgets, what=what, flagged=flagged)
    table = table.pivot_table(
        index=["detector", "what", "reliable", "flagged"], columns="budget", values="cell", aggfunc="first"
    )
    shown = _with_plain_flags(table.reset_index().rename_axis(columns=None).fillna("–"))  # noqa: RUF001
    headers = {"what": "kind", "flagged": "clean flagged at 5 %"}
    return [Table(shown, sentences.OVERVIEW_CAPTION, headers=headers)]


def _steps(table: pd.DataFrame) -> list[Block]:
    if table.empty:
        return []
    frame = table.copy()
    frame["lost"] = [
        _share(*values) for values in zip(table["lost"], table["lost_low"], table["lost_high"], strict=True)
    ]
    shown = frame[[*CONDITION, "attack", "n", "steps", "lost", "late"]]
    headers = {"lost": "lost at FPR 5 %", "late": "gained in the second half"}
    return [
        Fold("Lost against steps", [Table(shown, sentences.STEPS_CAPTION, {"late": ".1%", "epsilon": ".3g"}, headers)])
    ]


def _union(summary: pd.DataFrame) -> list[Block]:
    union = summary[summary["attack"] == UNION].drop(columns="worst_attack")
    union = union.assign(matched=[_share(*one) for one in zip(*(union[name] for name in MATCHED), strict=True)])
    worst = summary.loc[summary["attack"] == WORST, [*CONDITION, "worst_attack", "success_fpr_05"]]
    worst = worst.rename(columns={"success_fpr_05": "worst_success"})
    frame = union.merge(worst, on=CONDITION, how="left")
    frame["lost at FPR 5 %"] = _with_interval(frame, "success", "fpr_05")
    frame["lost at FPR 1 %"] = _with_interval(frame, "success", "fpr_01")
    shown = [*CONDITION, "n", "fooled_rate", "lost at FPR 5 %", "lost at FPR 1 %", "matched", "matched_passed",
             "worst_attack",
             "worst_success", "reliable"]  # fmt: skip
    headers = {
        "fooled_rate": "class changed",
        "matched_passed": "matched and passed",
        "worst_attack": "strongest single attack",
        "worst_success": "its success",
    }
    formats = {"fooled_rate": ".1%", "matched_passed": ".1%", "worst_success": ".1%", "epsilon": ".3g"}
    return [Table(_with_plain_flags(frame[shown]), sentences.UNION_CAPTION, formats, headers)]


def _per_attack(summary: pd.DataFrame) -> Fold:
    frame = summary[~summary["attack"].isin([UNION, WORST])].copy()
    frame["success"] = _with_interval(frame, "success", "fpr_05")
    shown = [*CONDITION, "attack", "n", "fooled_rate", "success", "success_fpr_01", "detected_fpr_05", "evaded_fpr_05",
             "median_l2", "median_linf", "gradient_evaluations", "zero_gradient_share"]  # fmt: skip
    headers = {
        "fooled_rate": "class changed",
        "matched_passed": "matched and passed", "success": "lost at FPR 5 %", "success_fpr_01": "lost at FPR 1 %",
        "detected_fpr_05": "of changed: detected", "evaded_fpr_05": "of changed: evaded", "median_l2": "median L2",
        "median_linf": "median L∞", "gradient_evaluations": "gradients", "zero_gradient_share": "zero gradients",
    }  # fmt: skip
    rates = ("fooled_rate", "success_fpr_01", "detected_fpr_05", "evaded_fpr_05", "zero_gradient_share")
    formats = dict.fromkeys(rates, ".1%") | {"gradient_evaluations": ",.0f", "epsilon": ".3g"}
    return Fold("Attack by attack", [Table(frame[shown], sentences.ATTACK_CAPTION, formats, headers)])


def _distortion(table: pd.DataFrame) -> list[Block]:
    headers = {
        "half_loss_l2_fpr_05": "L2, FPR 5 %", "half_loss_linf_fpr_05": "L∞, FPR 5 %",
        "half_loss_l2_fpr_01": "L2, FPR 1 %", "half_loss_linf_fpr_01": "L∞, FPR 1 %",
    }  # fmt: skip
    return [Table(table, sentences.HALF_LOSS_CAPTION, headers=headers)]


def _ranking(table: pd.DataFrame) -> Fold:
    return Fold("AUC under attack", [Table(table, sentences.AUC_CAPTION, {"auc": ".3f", "epsilon": ".3g"})])


def _checks(table: pd.DataFrame) -> Fold:
    failed = int((~table["passed"]).sum())
    title = f"Sanity checks: {len(table)} made, {failed} failed"
    ordered = table.sort_values("passed", kind="stable")[CHECK_COLUMNS]
    headers = {"name": "check"}
    return Fold(title, [Table(_with_plain_flags(ordered), sentences.CHECKS_CAPTION, headers=headers)])


def _figures(figures: Mapping[str, bytes]) -> list[Block]:
    blocks: list[Block] = []
    for name, figure in figures.items():
        kind, _, detector = name.partition("/")
        caption = sentences.CAPTIONS[kind] + (f" {detector}." if detector else "")
        blocks.append(Figure(figure, caption, caption))
    return blocks


def _reference(table: pd.DataFrame) -> list[Block]:
    if table.empty:
        return [Note(sentences.NO_REFERENCE)]
    frame = table.copy()
    for name in ("success", "detected", "evaded", "lost"):
        triples = zip(frame[name], frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
        frame[name] = [_share(value, low, high) for value, low, high in triples]
    shown = ["detector", "attack", "criterion", "form", "passes", "n", "success", "detected", "evaded", "lost",
             "median_l2"]  # fmt: skip
    headers = {"passes": "passes at", "success": "class changed", "detected": "of these detected",
               "evaded": "of these evaded", "lost": "changed and passed", "median_l2": "median L2"}  # fmt: skip
    return [Text(sentences.REFERENCE), Table(frame[shown], sentences.REFERENCE_CAPTION, headers=headers)]


def _hardening(table: pd.DataFrame, hardened: ShardStore) -> list[Block]:
    if table.empty:
        return [Note(sentences.NO_HARDENING)]
    frame = table.copy()
    frame["lost at FPR 5 %"] = _with_interval(frame, "success", "fpr_05")
    shown = ["hardened", "norm", "epsilon", "criterion", "when", "n", "lost at FPR 5 %", "success_fpr_01", "fpr_05",
             "fpr_01", "macro_auc", "macro_auc_confident"]  # fmt: skip
    headers = {
        "hardened": "detector", "success_fpr_01": "lost at FPR 1 %", "fpr_05": "clean flagged at 5 %",
        "fpr_01": "clean flagged at 1 %", "macro_auc": "AUC, ordinary attacks", "macro_auc_confident": "AUC, confident",
    }  # fmt: skip
    formats = dict.fromkeys(("success_fpr_01", "fpr_05", "fpr_01"), ".1%") | {"epsilon": ".3g"}
    formats |= {"macro_auc": ".3f", "macro_auc_confident": ".3f"}
    seen = _rounds(hardened)
    blocks: list[Block] = [
        Text(sentences.HARDENING),
        Table(frame[shown], sentences.HARDENING_CAPTION, formats, headers),
    ]
    return [*blocks, Fold("What the hardened detectors learned from", [Table(seen, sentences.ROUNDS_CAPTION)])]


def _rounds(hardened: ShardStore) -> pd.DataFrame:
    rows = []
    for key in hardened:
        for facts in hardened.metadata(key)["rounds"]:
            for split in ("train", "validation"):
                counts = {name: facts[split][name] for name in ("attacked", "fooled", "evaded")}
                rows.append({"detector": key, "round": facts["round"], "split": split, **counts})
    return pd.DataFrame(rows)


def _substitute(facts: Mapping[str, Any]) -> Note:
    return Note(sentences.SUBSTITUTE.format(**facts) if facts else sentences.NO_SUBSTITUTE)


def _with_interval(frame: pd.DataFrame, name: str, suffix: str) -> list[str]:
    columns = [f"{name}_{suffix}", f"{name}_low_{suffix}", f"{name}_high_{suffix}"]
    return [_share(*values) for values in zip(*(frame[column] for column in columns), strict=True)]


def _share(value: float, low: float, high: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1%} ({100 * low:.0f} to {100 * high:.0f})"  # noqa: RUF001


def _with_plain_flags(frame: pd.DataFrame) -> pd.DataFrame:
    flags = frame.select_dtypes("bool").columns
    return frame.assign(**{name: frame[name].map({True: "yes", False: "no"}) for name in flags})
