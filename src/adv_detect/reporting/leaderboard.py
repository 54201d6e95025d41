"""Comparison of all detectors: what adaptive attackers take from them, and the section of the report."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from adv_detect.measures.adaptive_metrics import UNION
from adv_detect.measures.detector_keys import rate_text
from adv_detect.measures.leaderboard import OF_CONFIGURATION, RATES, beyond_chance
from adv_detect.measures.reference_tables import MISSING, format_score
from adv_detect.names import BOTH_CRITERIA, NO_CRITERION, TESTED_FORMS, DetectorKey
from adv_detect.reporting.blocks import Block, Fold, Section, Table, Text, prose

TITLE = "Leaderboard"
LEADERBOARD, LOST = "leaderboard", "lost"
"""Tables that the parts of evaluation and of adaptive attacks leave for the comparison."""
ATTACKED, NOT_ATTACKED, NO_GRADIENT = "attacked", "not attacked", "not attacked: no gradient"
TAKEN = (
    "detector", "norm", "epsilon", "criterion", "n", "success_fpr_05", "success_low_fpr_05", "success_high_fpr_05",
    "matched", "matched_passed",
)  # fmt: skip
LOST_COLUMNS = ("adaptive", "lost", "lost_low", "lost_high", "lost_n", "lost_where", "matched", "matched_passed")
OPENING = prose("""
    A row per configuration: detectors for targeted and untargeted attacks alike where there are such. AUC on attacks
    that stop at the decision boundary (early), that go beyond it (confident), and on attacks that no detector learned
    from (unseen): mean over attacks and criteria, then the worst. An equals sign stands where the paired bootstrap does
    not tell a detector from the best. False alarms at a nominal 5% on natural test images, and on the benign change
    with most of them. Lost: share of images with which attackers who know the detector fool the network and are not
    flagged, at the budget with the highest share. Matched: share of images for which an attack that ignores all
    detectors brings every layer's distance among those of clean images of another class, and the share that the
    detector then accepts.
""")
CAPTION = (
    "{level:.0%} intervals; figures are means over seeds, but false alarms after benign changes and costs: first seed."
)
FOUND = (
    "Share of attacked images found at thresholds for a nominal rate on clean validation images: mean, worst attack."
)


def lost_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Choose what the comparison shows of adaptive attacks.

    Args:
        summary: The summary of adaptive attacks, with layer matching.

    Returns:
        The union over all attacks per detector, norm, epsilon and criterion, judged by the network itself, without
        hardened detectors; empty where nothing was attacked.
    """
    if summary.empty:
        return pd.DataFrame()
    union = (summary["attack"] == UNION) & (summary["classifier"] == "network") & (summary["rounds"] == 0)
    return summary.loc[union, list(TAKEN)].reset_index(drop=True)


def with_lost(measured: pd.DataFrame, lost: pd.DataFrame) -> pd.DataFrame:
    """Add what adaptive attackers take from each detector.

    Args:
        measured: Result of `measured_leaderboard`.
        lost: A row per detector, norm, epsilon and criterion: the images that any attack got through with
            (``success_fpr_05`` with ``success_low_fpr_05`` and ``success_high_fpr_05``, ``n``), ``matched`` and
            ``matched_passed``; empty where no adaptive attack has run.

    Returns:
        The table with ``adaptive`` (``attacked``, ``not attacked``, or ``not attacked: no gradient``) and, of the
        budget and criterion that take most, ``lost``, ``lost_low``, ``lost_high``, ``lost_n``, ``lost_where`` and
        ``matched``, ``matched_passed``.
    """
    most = _most(lost)
    rows = [_lost(row, most) for row in _rows(measured)]
    return pd.concat([measured, pd.DataFrame(rows, columns=list(LOST_COLUMNS), index=measured.index)], axis=1)


def leaderboard_metrics(table: pd.DataFrame) -> dict[str, float]:
    """Name the figures that MLflow keeps.

    Args:
        table: Result of :func:`with_lost`.

    Returns:
        ``leaderboard/<configuration>/<column>``; configurations with a row per criterion have it between.
    """
    found: dict[str, float] = {}
    for row in table.to_dict("records"):
        several = int((table["configuration"] == row["configuration"]).sum()) > 1
        place = f"leaderboard/{row['configuration']}" + (f"/{row['trained_criterion']}" if several else "")
        figures = {str(name): value for name, value in row.items() if isinstance(value, int | float | np.number)}
        found |= {f"{place}/{name}": float(value) for name, value in figures.items() if np.isfinite(value)}
    return found


def leaderboard_section(table: pd.DataFrame, *, confidence_level: float = 0.95) -> Section:
    """Write the section on all detectors.

    Args:
        table: Result of :func:`with_lost`.
        confidence_level: Coverage of the intervals.

    Returns:
        The section.
    """
    shown = pd.DataFrame([_cells(row) for row in _rows(table)])
    found = pd.DataFrame([_found(row) for row in _rows(table)])
    blocks: list[Block] = [
        Text(OPENING),
        Table(shown, CAPTION.format(level=confidence_level)),
        Fold("Found at fixed false-alarm rates", [Table(found, FOUND)]),
    ]
    return Section(TITLE, blocks)


def _rows(table: pd.DataFrame) -> list[dict[str, object]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _most(lost: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds, and keep of each configuration the condition that takes most."""
    if lost.empty:
        return lost
    lost = lost.reindex(columns=list(TAKEN))  # a part of the report that an earlier version wrote may lack some
    keys = [DetectorKey.parse(str(key)) for key in lost["detector"]]
    named = lost.assign(
        configuration=[key.configuration for key in keys], trained_criterion=[key.criterion for key in keys]
    )
    by = [*OF_CONFIGURATION, "norm", "epsilon", "criterion"]
    figures = ["success_fpr_05", "success_low_fpr_05", "success_high_fpr_05", "n", "matched", "matched_passed"]
    means = named.groupby(by, dropna=False, sort=False)[figures].mean().reset_index()
    ordered = means.sort_values("success_fpr_05", ascending=False, kind="stable")
    return ordered.drop_duplicates(OF_CONFIGURATION).set_index(OF_CONFIGURATION)


def _lost(row: Mapping[str, object], most: pd.DataFrame) -> tuple[object, ...]:
    key = tuple(row[name] for name in OF_CONFIGURATION)
    if key not in most.index:
        word = NOT_ATTACKED if row["differentiable"] else NO_GRADIENT
        return (word, *[float("nan")] * 4, "", *[float("nan")] * 2)
    mine = most.loc[[key]].iloc[0]
    size = "smallest perturbation" if pd.isna(mine["epsilon"]) else f"{mine['norm']} up to {mine['epsilon']:.3g}"
    shares = (float(mine[f"success{end}_fpr_05"]) for end in ("", "_low", "_high"))
    matched = (float(mine[name]) for name in ("matched", "matched_passed"))
    return (ATTACKED, *shares, float(mine["n"]), f"{mine['criterion']}, {size}", *matched)


def _cells(row: Mapping[str, object]) -> dict[str, str]:
    """One row as a reader sees it."""
    cells = {"detector": _label(row), "learns from": str(row["learns_from"])}
    for form in TESTED_FORMS:
        mean, worst = _number(row, f"{form}_auc_mean"), _number(row, f"{form}_auc_worst")
        tied = not np.isnan(mean) and not beyond_chance(row, form)
        text = f"{format_score(mean)} / {format_score(worst)}{' =' if tied else ''}"
        cells[f"AUC {form}"] = MISSING if np.isnan(mean) else text
    cells["above margin"] = _of(row, "above_margin", "attacks")
    cells["false alarms"] = _percent(_number(row, "fpr_05"))
    benign = _number(row, "benign_fpr_05")
    cells["worst benign change"] = MISSING if np.isnan(benign) else f"{_percent(benign)} ({row['benign_change']})"
    cells["lost"] = _lost_text(row)
    cells["matched / passed"] = " / ".join(_percent(_number(row, name)) for name in ("matched", "matched_passed"))
    cells |= {"passes": f"{_number(row, 'forward_passes'):.3g}", "ms an image": f"{_number(row, 'ms_per_image'):.3g}"}
    return cells | {"kB": f"{_number(row, 'bytes') / 1000:,.0f}"}


def _found(row: Mapping[str, object]) -> dict[str, str]:
    cells = {"detector": _label(row)}
    for form in TESTED_FORMS:
        for rate in RATES:
            pair = [_percent(_number(row, f"{form}_tpr_{rate}_{what}")) for what in ("mean", "worst")]
            cells[f"{form}, {rate_text(rate)}"] = " / ".join(pair)
    realised = " / ".join(_percent(_number(row, f"fpr_{rate}")) for rate in RATES)
    return cells | {f"false alarms at {', '.join(map(rate_text, RATES))}": realised}


def _lost_text(row: Mapping[str, object]) -> str:
    if row["adaptive"] != ATTACKED:
        return str(row["adaptive"])
    share, low, high = (_percent(_number(row, f"lost{end}")) for end in ("", "_low", "_high"))
    return f"{share} ({low} to {high}; n = {_number(row, 'lost_n'):.0f}; {row['lost_where']})"


def _label(row: Mapping[str, object]) -> str:
    """Name a configuration, with the criterion where its detectors are for one alone."""
    criterion = str(row["trained_criterion"])
    known = criterion in (BOTH_CRITERIA, NO_CRITERION)
    return str(row["configuration"]) if known else f"{row['configuration']} ({criterion})"


def _of(row: Mapping[str, object], name: str, total: str) -> str:
    value = _number(row, name)
    return MISSING if np.isnan(value) else f"{value:.0f} of {_number(row, total):.0f}"


def _number(row: Mapping[str, object], name: str) -> float:
    return float(row.get(name, float("nan")))  # type: ignore[arg-type]


def _percent(value: float) -> str:
    return MISSING if np.isnan(value) else f"{value:.1%}"
