"""False alarms of detectors on benign changes, as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from adv_detect.errors import DataError
from adv_detect.measures.benign_changes import SHOWN_RATE
from adv_detect.measures.detector_keys import configuration_labels, rate_text
from adv_detect.names import NO_CRITERION
from adv_detect.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DARK_CELL = 0.55
HELD_OUT = "*"
"""Marks a change that is never in training."""


def benign_heat_map(table: pd.DataFrame, *, rate: str = SHOWN_RATE, title: str = "") -> Figure:
    """Draw the share of false alarms per detector and benign change.

    Args:
        table: Result of ``benign_table``.
        rate: The nominal rate, as in the names of columns.
        title: What is shown.

    Returns:
        The figure: a row per detector, a column per change with the accuracy of the network on it; changes with a
        star are never in training.

    Raises:
        DataError: The table is empty.
    """
    if table.empty:
        raise DataError("expected false alarms of at least one detector on one change, got an empty table")
    shares = table.pivot(index="detector", columns="change", values=f"fpr_{rate}")
    shares = shares.loc[list(table["detector"].unique()), list(table["change"].unique())]
    values = 100 * shares.to_numpy(dtype=float)
    figure = style.new_figure(0.52 * values.shape[1] + 3.6, 0.3 * len(values) + 2.1)
    axes = figure.subplots()
    high = max(4 * float(rate.replace("_", ".")), float(np.nanmax(values)) if np.isfinite(values).any() else 0.0)
    image = axes.imshow(values, cmap="cividis", vmin=0.0, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = "–" if np.isnan(value) else f"{value:.0f}"  # noqa: RUF001 - an en dash in a table
        colour = "black" if value > DARK_CELL * high else "white"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=style.FONT_SIZE)
    style.tidy(axes, x_label="benign change (accuracy of the network on it)", grid=False)
    axes.set_xticks(range(values.shape[1]), _changes(table), rotation=40, ha="right")
    axes.set_yticks(range(len(values)), _detectors(table))
    figure.colorbar(image, ax=axes, label=f"false alarms, % (nominal {rate_text(rate)})", shrink=0.9)
    style.heading(figure, title)
    return figure


def _changes(table: pd.DataFrame) -> list[str]:
    rows = table.drop_duplicates("change").to_dict("records")
    return [f"{row['change']}{'' if row['train'] else HELD_OUT} ({row['accuracy']:.0%})" for row in rows]


def _detectors(table: pd.DataFrame) -> list[str]:
    labels = configuration_labels(table)
    rows = table.drop_duplicates("detector").to_dict("records")
    return [_label(labels[str(row["configuration"])], str(row["trained_criterion"])) for row in rows]


def _label(label: str, criterion: str) -> str:
    return label if criterion == NO_CRITERION else f"{label}, {criterion}"
