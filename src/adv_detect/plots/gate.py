"""Figure of the attacks on verification that get through a gate, detector by detector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from adv_detect.measures.faces.gate import FALSE_REJECT, KNOWN, VALIDATION, attack_label
from adv_detect.names import DODGING, IMPERSONATION
from adv_detect.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEFORE = "no gate"
HEIGHT = 0.1
"""Inches that the marker of a detector takes."""
GAP = 0.7
"""Part of a row that the markers of all detectors take."""


def gate_figure(table: pd.DataFrame) -> Figure:
    """Draw the share of attacked pairs that get through, before and after each detector.

    Args:
        table: Result of :func:`adv_detect.measures.faces.gate.gate_table` with the column ``configuration``; drawn is
            the highest false-positive rate, at thresholds fixed on validation images.

    Returns:
        The figure: impersonation and dodging beside each other, a row per attack, a marker per detector with its 95 %
        interval; the legend says what each detector costs in clean pairs of the same person.
    """
    shown = table[(table["fpr"] == table["fpr"].max()) & (table["calibrated_on"] == VALIDATION)]
    shown = shown.assign(label=attack_label(shown))
    kinds = [kind for kind in (IMPERSONATION, DODGING) if (shown["kind"] == kind).any()] or [IMPERSONATION]
    most = max(shown.loc[shown["kind"] == kind, "label"].nunique() for kind in kinds)
    row = max(0.36, HEIGHT * shown["configuration"].nunique())
    figure = style.new_figure(4.6 * len(kinds) + 3.2, row * max(most, 3) + 1.4)
    panels = figure.subplots(1, len(kinds), sharex=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        _draw(axes, shown[shown["kind"] == kind], _costs(shown))
        style.tidy(axes, title=kind, x_label="pairs that get through, %")
        axes.set_xlim(-3, 103)
    style.joint_legend(figure, panels)
    return figure


def _draw(axes: Axes, rows: pd.DataFrame, costs: dict[str, str]) -> None:
    labels = list(rows["label"].unique())
    place = {label: len(labels) - row for row, label in enumerate(labels)}
    first = rows.drop_duplicates("label")
    heights = [place[label] for label in first["label"]]
    axes.plot(100 * first["before"], heights, "o", mfc="none", color=style.CONTROL_COLOUR, ms=9, label=BEFORE)
    colours, markers = style.colours(costs), style.markers(costs)
    for number, (name, cost) in enumerate(costs.items()):
        own = rows[rows["configuration"] == name]
        shift = GAP * ((number + 0.5) / len(costs) - 0.5)
        axes.errorbar(
            100 * own["after"],
            [place[label] - shift for label in own["label"]],
            xerr=(100 * (own["after"] - own["after_low"]).clip(lower=0), 100 * (own["after_high"] - own["after"])),
            fmt=markers[name], color=colours[name], ms=4.5, elinewidth=0.8, label=f"{name} ({cost})",
        )  # fmt: skip
    axes.set_yticks([place[label] for label in labels], labels)


def _costs(rows: pd.DataFrame) -> dict[str, str]:
    """Percentage points of clean pairs of the same person that each detector turns away."""
    clean = rows[(rows["kind"] == FALSE_REJECT) & (rows["people"] == KNOWN)]
    return {
        str(row["configuration"]): f"+{100 * (row['after'] - row['before']):.1f} points rejected"
        for row in clean.to_dict("records")
    }
