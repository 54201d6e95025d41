"""The first section: what came out, in plain words computed from the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from adv_detect.measures.detector_keys import MARGIN, UNTRAINED
from adv_detect.measures.reference_tables import format_score
from adv_detect.reporting import evaluation_sentences as sentences
from adv_detect.reporting.benign import benign_note
from adv_detect.reporting.blocks import Block, Card, Cards, Note, Section, Text
from adv_detect.reporting.results import EvaluationResults, chosen_detector

SHOWN_RATE = "05"
MISFIRE_AUC = 0.6


def summary_section(results: EvaluationResults) -> Section:
    """Say per criterion which detector was chosen, how well it does, where it fails, and if it beats the margin."""
    blocks: list[Block] = [Text(_what_was_done(results))]
    for criterion in results.criteria:
        key = chosen_detector(results.detectors, criterion)
        if key is not None and results.row(key, attack="macro", criterion=criterion, form="early"):
            blocks += _verdict(results, key, criterion)
    blocks += benign_note(results)
    return Section("Summary", blocks)


def _what_was_done(results: EvaluationResults) -> str:
    n_detectors = int((results.metrics.drop_duplicates("detector")["kind"] != "control").sum())
    natural = int(results.metrics["n_natural"].max())
    text = sentences.SUMMARY.format(detectors=n_detectors, naturals=natural)
    return f"{text} Registered for use: `{results.registered}`." if results.registered else text


def _verdict(results: EvaluationResults, key: str, criterion: str) -> list[Block]:
    row = results.row(key, attack="macro", criterion=criterion, form="early")
    if row is None:
        return []
    blocks: list[Block] = [Text(f"**{criterion.capitalize()} attacks.** {_performance(results, key, row)}")]
    blocks.append(Cards(_cards(results, key, criterion)))
    if results.has_margin:
        blocks.append(compare_with_margin(results.single_attacks(key, criterion), label=_label(results, row)))
    return [*blocks, *_misfires(results, key, criterion)]


def _label(results: EvaluationResults, row: dict[str, Any]) -> str:
    return results.labels[str(row["configuration"])]


def _performance(results: EvaluationResults, key: str, row: dict[str, Any]) -> str:
    early = {"criterion": str(row["criterion"]), "form": "early"}
    text = (
        f"{_label(results, row)} (seed {row['seed']}) reaches a macro-AUC of **{format_score(row['auc'])}** "
        f"({_interval(row, results)}) on attacks that stop at their first success."
    )
    if worst := results.row(key, attack="worst", **early):
        text += f" Hardest is {worst['worst_attack']} with {format_score(worst['auc'])}."
    pooled = results.row(key, attack="all", **early)
    if pooled is not None and f"tpr_at_fpr_{SHOWN_RATE}" in pooled:
        text += (
            f" With the threshold set to {int(SHOWN_RATE)}% false alarms on clean validation images, it flags "
            f"{pooled[f'tpr_at_fpr_{SHOWN_RATE}']:.1%} of the adversarial and {pooled[f'fpr_{SHOWN_RATE}']:.1%} of the "
            f"natural test images."
        )
    return text


def _interval(row: dict[str, Any], results: EvaluationResults) -> str:
    if pd.isna(row["auc_low"]):
        return "no interval computed"
    return f"{results.confidence_level:.0%} interval {format_score(row['auc_low'])} to {format_score(row['auc_high'])}"


def _cards(results: EvaluationResults, key: str, criterion: str) -> list[Card]:
    cards = []
    for form, attack, label in (
        ("early", "macro", "macro-AUC, attacks stopped at first success"),
        ("early", "worst", "hardest of these attacks"),
        ("confident", "macro", "macro-AUC, confident attacks"),
        ("unseen", "macro", "macro-AUC, other attacks"),
    ):
        row = results.row(key, attack=attack, criterion=criterion, form=form)
        if row is not None:
            detail = str(row["worst_attack"]) if attack == "worst" else _unseen(results, key, criterion, form)
            cards.append(
                Card(format_score(row["auc"]), label, f"{detail}{_margin_detail(results, row, criterion, form)}")
            )
    return cards


def _unseen(results: EvaluationResults, key: str, criterion: str, form: str) -> str:
    """Say whether training knew these attacks."""
    rows = results.single_attacks(key, criterion)
    names = set(rows[rows["form"] == form]["attack"])
    known = names & set(results.trained_attacks)
    count = f"{len(names)} attack{'s' if len(names) != 1 else ''}"
    if not results.trained_attacks or not names:
        return count
    return f"{count}, {'none' if not known else 'all' if known == names else len(known)} seen in training"


def _margin_detail(results: EvaluationResults, row: dict[str, Any], criterion: str, form: str) -> str:
    attack = row["worst_attack"] if row["attack"] == "worst" else row["attack"]
    control = results.row(MARGIN, attack=str(attack), criterion=criterion, form=form)
    return f"; margin control {format_score(control['auc'])}" if control else ""


def compare_with_margin(rows: pd.DataFrame, *, label: str) -> Note:
    """Say honestly whether a detector beats the margin control on every attack.

    Args:
        rows: One row per attack with ``margin_gain``, ``margin_gain_low``, ``attack``, ``auc``.
        label: Name of the detector.

    Returns:
        A note: good where it is ahead everywhere beyond the paired interval, cautious where it is behind anywhere.
    """
    ahead = rows[rows["margin_gain"] > 0]
    behind = rows[rows["margin_gain"] < 0]
    clear = rows[rows["margin_gain_low"] > 0]
    total = f"all {len(rows)} attacks" if len(rows) != 1 else "the one attack"
    if len(clear) == len(rows):
        return Note(f"{sentences.MARGIN} {label} beats it on {total}, each time beyond the paired interval.", "good")
    if len(behind) == 0 and len(ahead) == len(rows):
        open_ = _names(rows.drop(clear.index))
        return Note(
            f"{sentences.MARGIN} {label} is ahead of it on {total}; not beyond the paired interval: {open_}.", "info"
        )
    text = f"{sentences.MARGIN} {label} does **not** beat it everywhere: it is ahead on "
    text += f"{len(ahead)} of {len(rows)} attacks"
    text += f" (on {len(clear)} beyond the paired interval)"
    if len(behind):
        text += f" and behind on {_names(behind)}"
    equal = rows.drop(ahead.index).drop(behind.index)
    text += f"; level on {_names(equal)}." if len(equal) else "."
    return Note(text, "caution")


def _names(rows: pd.DataFrame) -> str:
    pairs: Sequence[tuple[str, float]] = list(zip(rows["attack"], rows["margin_gain"], strict=True))
    return ", ".join(f"{attack} ({gain:+.3f})" for attack, gain in pairs)


def _misfires(results: EvaluationResults, key: str, criterion: str) -> list[Block]:
    """Warn where a control does what it should not do."""
    notes: list[Block] = []
    noise = results.row(key, attack="macro", criterion=criterion, form="early", variant="noise")
    if noise and noise["auc"] > MISFIRE_AUC:
        text = f"Random noise of the same norm already scores AUC {format_score(noise['auc'])} against natural images: "
        notes.append(Note(f"{text}a part of what is detected is that pixels changed at all.", "caution"))
    return [*notes, *_untrained(results, criterion)]


def _untrained(results: EvaluationResults, criterion: str) -> list[Block]:
    """Say what random weights reach by luck, and whether they are off .5 by more than luck."""
    metrics = results.metrics
    drawn = (metrics["configuration"] == UNTRAINED) & (metrics["variant"] == "float") & (metrics["attack"] == "macro")
    aucs = metrics.loc[drawn & (metrics["criterion"] == criterion) & (metrics["form"] == "early"), "auc"]
    if aucs.empty or max(aucs.max(), 1 - aucs.min()) <= MISFIRE_AUC:
        return []
    text = (
        f"Untrained detectors reach {format_score(aucs.min())} to {format_score(aucs.max())} over {len(aucs)} draws of "
        f"random weights, {format_score(aucs.mean())} on average: attacks shift trajectories so far that a read-out "
        "that learned nothing separates them, in one direction or the other."
    )
    return [Note(text)]
