"""The sections on attacks and detection, each from its table."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from adv_detect.measures.detector_keys import (
    BOTH_CRITERIA,
    CONTROLS,
    MACRO,
    NATURAL,
    REFERENCE,
    TRAINED_ON_ALL,
    rate_text,
    series_label,
)
from adv_detect.measures.evaluation_tables import (
    attack_table,
    average_over_seeds,
    format_score,
    quantisation_table,
    reference_table,
    select,
    train_test_matrix,
)
from adv_detect.measures.reference_tables import MISSING, attacks_on_features
from adv_detect.names import CONFIDENT, EARLY, TESTED_FORMS, UNSEEN
from adv_detect.reporting import evaluation_sentences as sentences
from adv_detect.reporting.blocks import SCORE, Block, Figure, Fold, Note, Section, Table, Text
from adv_detect.reporting.results import EvaluationResults, chosen_detector

FORM_WORDS = {
    EARLY: "stopped at first success",
    CONFIDENT: "confident: all steps run, or a margin asked for",
    UNSEEN: "unseen: no detector learned from one of these",
}


def figures(results: EvaluationResults, name: str, criterion: str | None = None) -> list[Block]:
    """Blocks of all figures of a name: ``roc``, ``roc/targeted``, ``roc/targeted-confident``.

    Args:
        results: Holds the figures.
        name: What comes before the slash.
        criterion: Keep only those whose suffix begins with this word.

    Returns:
        The blocks, in the order given.
    """
    blocks: list[Block] = []
    for key, figure in results.figures.items():
        kind, _, suffix = key.partition("/")
        if kind == name and criterion in (None, re.split("[/-]", suffix)[0]):
            words = re.sub("[/-]", ", ", suffix)
            caption = f"{sentences.CAPTIONS[name]}{f' ({words})' if words else ''}."
            alt = f"{name.replace('_', ' ')} {words}".strip()
            blocks.append(Figure(figure, caption, alt))
    return blocks


def attacks_section(results: EvaluationResults) -> Section:
    """Write the section on success and size of the attacks on the network."""
    if results.attack_records.empty:
        return Section("Attacks", [Text(sentences.NO_ATTACKS)])
    table = attack_table(results.attack_records, confidence_level=results.confidence_level)
    rates = zip(table["success_rate"], table["success_low"], table["success_high"], strict=True)
    table["success_rate"] = [f"{rate:.1%} ({100 * low:.1f} to {100 * high:.1f})" for rate, low, high in rates]
    caption = sentences.ATTACKS_CAPTION.format(level=results.confidence_level)
    headers = {
        "n_attacked": "attacked", "n_success": "fooled", "success_rate": "success rate", "l2_mean": "L2 mean",
        "l2_median": "L2 median", "linf_mean": "L∞ mean", "linf_median": "L∞ median",
        "gradient_evaluations": "gradient evaluations", "n_non_finite": "failed by NaN or infinity",
    }  # fmt: skip
    shown = table.drop(columns=["success_low", "success_high"])
    formats = {"gradient_evaluations": ",.0f"}
    blocks: list[Block] = [Table(shown, caption, formats, headers), *figures(results, "adversarial_grid")]
    return Section("Attacks", blocks)


def detection_section(results: EvaluationResults) -> Section:
    """The table of the paper, one per criterion and form, with the controls."""
    blocks: list[Block] = []
    for criterion in results.criteria:
        for form in TESTED_FORMS:
            published = results.published.get(criterion) if form == EARLY else None
            table = reference_table(results.metrics, criterion=criterion, form=form, published=published)
            if len(table):
                caption = f"AUC on {criterion} attacks, {FORM_WORDS[form]}; detectors trained on {criterion} attacks."
                caption += _spread(results) + (f" {sentences.PUBLISHED}" if published else "")
                caption += f" {sentences.ON_FEATURES}" if attacks_on_features(results.metrics) else ""
                blocks.append(Table(table, caption, mark_best=list(table.columns[1:])))
        blocks += figures(results, "auc_overview", criterion)
    return Section("Detection", [*blocks, *_without_attacks(results)])


def _without_attacks(results: EvaluationResults) -> list[Block]:
    """False alarms on natural test images, where nothing else was measured."""
    rows = results.metrics[results.metrics["attack"] == NATURAL]
    if rows.empty:
        return []
    rates = [str(name).removeprefix("fpr_") for name in rows.columns if re.fullmatch(r"fpr_\d+", str(name))]
    shown = rows[["detector", "n_natural", *(f"fpr_{rate}" for rate in rates)]]
    headers = {"n_natural": "n"} | {f"fpr_{rate}": f"flagged at {rate_text(rate)}" for rate in rates}
    formats = {f"fpr_{rate}": ".1%" for rate in rates}
    return [Table(shown, sentences.FALSE_ALARMS_ALONE, formats, headers)]


def _spread(results: EvaluationResults) -> str:
    seeds = int(results.metrics[~results.metrics["configuration"].isin(CONTROLS)]["seed"].nunique())
    return f" Mean ± standard deviation over {seeds} seeds." if seeds > 1 else " One seed."


def operating_section(results: EvaluationResults) -> Section:
    """Write the section on the chosen detector at fixed thresholds."""
    blocks: list[Block] = [Text(sentences.THRESHOLDS)]
    for criterion in results.criteria:
        key = chosen_detector(results.detectors, criterion)
        if key is not None:
            blocks += _operating_tables(results, key, criterion)
    return Section("At fixed thresholds", [*blocks, *figures(results, "roc"), *figures(results, "score_histograms")])


def _operating_tables(results: EvaluationResults, key: str, criterion: str) -> list[Block]:
    rows = results.single_attacks(key, criterion)
    if rows.empty:
        return []
    rates = sorted(name.removeprefix("tpr_at_fpr_") for name in rows.columns if str(name).startswith("tpr_at_fpr_"))
    found = [f"tpr_at_fpr_{rate}" for rate in rates]
    shown = rows[["attack", "form", "n_adversarial", "auc", "eer", "eer_accuracy", *found]].copy()
    triples = zip(rows["auc"], rows["auc_low"], rows["auc_high"], strict=True)
    shown["auc"] = [f"{format_score(auc)} ({format_score(low)} to {format_score(high)})" for auc, low, high in triples]
    headers = {"n_adversarial": "n", "auc": f"AUC ({results.confidence_level:.0%} interval)", "eer": "EER"}
    headers |= {"eer_accuracy": "EER accuracy"} | {
        f"tpr_at_fpr_{rate}": f"found at {rate_text(rate)}" for rate in rates
    }
    formats = dict.fromkeys([*found, "eer", "eer_accuracy"], ".1%")
    label = results.labels[str(rows["configuration"].iloc[0])]
    caption = f"{label} on {criterion} attacks: AUC, and share of adversarials found at fixed false-alarm rates."
    return [Table(shown, caption, formats, headers), _false_alarms(rows, rates, label), *_failures(rows, rates)]


def _false_alarms(rows: pd.DataFrame, rates: Sequence[str], label: str) -> Table:
    first = rows.iloc[0]
    frame = pd.DataFrame(
        {
            "natural test images": ["all", "misclassified by the network"],
            "n": [int(first["n_natural"]), int(first["n_misclassified"])],
        }
        | {rate_text(rate): [first[f"fpr_{rate}"], first[f"fpr_misclassified_{rate}"]] for rate in rates}
    )
    caption = f"{label}: share of natural test images flagged, at the false-alarm rate that the threshold was set to."
    return Table(frame, caption, {rate_text(rate): ".1%" for rate in rates})


def _failures(rows: pd.DataFrame, rates: Sequence[str]) -> list[Block]:
    failed = rows[rows["n_failed"] > 0] if "n_failed" in rows.columns else rows.iloc[:0]
    if failed.empty:
        return []
    flagged = {f"failed_flagged_{rate}": f"flagged at {rate_text(rate)}" for rate in rates}
    columns, headers = list(flagged), {"n_failed": "failed"} | flagged
    caption = "Attempts that did not fool the network, kept apart: how many of them are flagged all the same."
    frame = failed[["attack", "form", "n_failed", *columns]].astype({"n_failed": int})
    return [Fold("Failed attempts", [Table(frame, caption, dict.fromkeys(columns, ".1%"), headers)])]


def comparison_section(results: EvaluationResults) -> Section:
    """Early, confident and unseen attacks, own against other criterion."""
    blocks: list[Block] = [Text(sentences.COMPARISON)]
    for criterion in results.criteria:
        frame = _comparison(results, criterion)
        if len(frame):
            caption = f"Macro-AUC on {criterion} attacks by training and by form of the attack.{_spread(results)}"
            blocks.append(Table(frame, caption, mark_best=list(frame.columns[1:])))
    return Section("Early, confident and unseen attacks", blocks)


def _comparison(results: EvaluationResults, criterion: str) -> pd.DataFrame:
    columns: dict[str, dict[str, str]] = {}
    for trained in ("own", "other"):
        for form in TESTED_FORMS:
            rows = select(results.metrics, criterion=criterion, form=form, trained=trained)
            rows = rows[rows["attack"] == MACRO]
            if rows.empty or set(rows["configuration"]) <= set(CONTROLS):
                continue
            name = f"{form} attacks, trained on {'the same' if trained == 'own' else 'the other'} criterion"
            columns[name] = _macro_cells(results, rows)
    frame = pd.DataFrame(columns).fillna(MISSING)
    aside = frame.index.str.startswith("control:")
    frame = pd.concat([frame[~aside], frame[aside]])
    return frame.reset_index(names="detector")


def _macro_cells(results: EvaluationResults, rows: pd.DataFrame) -> dict[str, str]:
    numbers = average_over_seeds(rows)
    names = [
        series_label(results.labels[name], trained)
        for name, trained in zip(numbers["configuration"], numbers["trained_criterion"], strict=True)
    ]
    return {
        name: format_score(*pair)
        for name, pair in zip(names, zip(numbers["mean"], numbers["std"], strict=True), strict=True)
    }


def quantisation_section(results: EvaluationResults) -> Section:
    """Write the section on attacked images stored with 8 bits per channel."""
    blocks: list[Block] = [Text(sentences.QUANTISATION)]
    names = results.detectors.set_index("detector")["configuration"]
    for criterion, key in ((one, chosen_detector(results.detectors, one)) for one in results.criteria):
        if key is None:
            continue
        table = quantisation_table(results.metrics, detector=key, criterion=criterion)
        if len(table):
            formats = {"survival_rate": ".1%", "auc_float": SCORE, "auc_8bit": SCORE}
            headers = {"n_adversarial": "successes", "n_survived": "still fooling", "survival_rate": "share",
                       "auc_float": "AUC", "auc_8bit": "AUC, 8 bit"}  # fmt: skip
            caption = f"{results.labels[str(names[key])]}, {criterion} attacks: AUC of all successful attacks, before "
            caption += "rounding, and of those that still fool the network when rounded to 8 bits."
            blocks.append(Table(table, caption, formats, headers))
    return Section("8-bit images", blocks if len(blocks) > 1 else [*blocks, Note("Not measured in this run.")])


def controls_section(results: EvaluationResults) -> Section:
    """Noise, untrained detector, margin."""
    blocks: list[Block] = [Text(sentences.CONTROLS)]
    for criterion in results.criteria:
        table = reference_table(results.metrics, criterion=criterion, variant="noise")
        if len(table):
            caption = f"Random noise of the norm of {criterion} attacks against natural images: AUC; .500 is ideal."
            blocks.append(Table(table, caption + _spread(results)))
    if len(blocks) == 1:
        blocks.append(
            Note("Noise was not scored in this run; margin and untrained detector stand in the tables above.")
        )
    return Section("Controls", blocks)


def matrix_section(results: EvaluationResults) -> Section:
    """Detectors trained without one attack, tested on all."""
    left_out = results.metrics[~results.metrics["trained_on"].isin([TRAINED_ON_ALL, REFERENCE, "none"])]
    pairs = left_out.drop_duplicates(["configuration", "trained_criterion"])
    tables = [
        _matrix_table(results, str(configuration), criterion)
        for configuration, trained in zip(pairs["configuration"], pairs["trained_criterion"], strict=True)
        for criterion in (results.criteria if trained == BOTH_CRITERIA else [str(trained)])
    ]
    if not tables:
        note = "No configuration was trained with one attack left out (parameter `leave_one_out`)."
        return Section("Attacks left out of training", [Note(note)])
    pictures = figures(results, "train_test_matrix")
    blocks = [*pictures, Fold("As tables", tables)] if pictures else tables
    return Section("Attacks left out of training", blocks)


def _matrix_table(results: EvaluationResults, configuration: str, criterion: str) -> Table:
    matrix = train_test_matrix(results.metrics, configuration=configuration, criterion=criterion)
    frame = matrix.rename_axis(columns=None).reset_index(names="trained on")
    frame["trained on"] = frame["trained on"].astype(str).str.replace("without-", "all but ")
    caption = f"{results.labels[configuration]}: AUC on {criterion} attacks (columns) by attacks in training (rows)."
    return Table(frame, caption, dict.fromkeys(map(str, matrix.columns), SCORE))


def inside_section(results: EvaluationResults) -> Section:
    """Write the section on the detector's input and training."""
    pictures = [*figures(results, "mean_trajectory"), *figures(results, "training_curves")]
    return Section("What the detector sees", [Text(sentences.INSIDE), *pictures])
