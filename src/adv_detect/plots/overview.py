"""All detectors at a glance, and the train x test matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from adv_detect.errors import DataError
from adv_detect.measures.detector_keys import ALL, CONTROLS, MARGIN, WORST, configuration_labels, series_label
from adv_detect.measures.reference_tables import attacks_on_features, ordered_attacks, select
from adv_detect.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHANCE = 0.5
DARK_CELL = 0.62


def auc_overview(metrics: pd.DataFrame, *, criterion: str, form: str = "early", title: str = "") -> Figure:
    """Draw AUC with interval, per attack and configuration, against the margin control.

    Args:
        metrics: Result of `metric_table`.
        criterion: Attacks tested; detectors trained on it (or on both).
        form: ``early``, ``confident`` or ``unseen``.
        title: What is shown.

    Returns:
        The figure: per attack (and ``macro``) a panel row of dots, mean over seeds, with the hull of the seeds'
        intervals; the short black line is the margin control.

    Raises:
        DataError: Nothing was measured under this condition.
    """
    rows = select(metrics, criterion=criterion, form=form)
    rows = rows[~rows["attack"].isin([ALL, WORST]) & rows["auc"].notna()]
    controls, series = rows[rows["configuration"] == MARGIN], _series(rows, metrics)
    if not series:
        raise DataError(f"metrics: expected detectors tested on {criterion} {form} attacks, got none")
    attacks = ordered_attacks(rows["attack"].unique(), last=attacks_on_features(metrics))
    figure = style.new_figure(9.0, 0.15 * len(attacks) * (len(series) + 2) + 1.4)
    axes = figure.subplots()
    colours, shapes = style.colours(series), style.markers(series)
    offsets = np.linspace(-0.33, 0.33, len(series)) if len(series) > 1 else np.zeros(1)
    for offset, (name, part) in zip(offsets, series.items(), strict=True):
        _dots(axes, _points(part, attacks), np.arange(len(attacks)) + offset, (colours[name], shapes[name], name))
    if len(controls):
        _reference(axes, _points(controls, attacks))
    _dress(axes, attacks)
    figure.legend(fontsize=style.FONT_SIZE - 1.5, loc="outside lower center", ncols=3, frameon=False)
    style.heading(figure, title)
    return figure


def _series(rows: pd.DataFrame, metrics: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows per label of configuration and training, without the controls."""
    labels = configuration_labels(metrics)
    trained = rows[~rows["configuration"].isin(CONTROLS)]
    found = {}
    for key, part in trained.groupby(["configuration", "trained_criterion"], sort=False, observed=True):
        name, trained_criterion = map(str, key)
        found[series_label(labels[name], trained_criterion)] = part
    return found


def _dress(axes: Axes, attacks: list[str]) -> None:
    if min(axes.get_xlim()) < CHANCE:
        axes.axvline(CHANCE, color=style.CONTROL_COLOUR, linewidth=0.8, linestyle=":", label="chance")
    axes.set_yticks(range(len(attacks)), attacks)
    axes.set_ylim(len(attacks) - 0.4, -0.6)
    axes.set_xlim(right=1.005)
    style.tidy(
        axes, x_label="area under the ROC curve (dot: mean over seeds; bar: bootstrap interval, hull over seeds)"
    )
    axes.grid(visible=False, axis="y")
    for edge in np.arange(len(attacks) - 1) + 0.5:
        axes.axhline(edge, color=style.GRID, linewidth=0.8)


def _points(rows: pd.DataFrame, attacks: list[str]) -> pd.DataFrame:
    grouped = rows.groupby("attack", observed=True)
    points = grouped.agg(auc=("auc", "mean"), low=("auc_low", "min"), high=("auc_high", "max"))
    return points.reindex(attacks)


def _dots(axes: Axes, points: pd.DataFrame, heights: np.ndarray, drawn_as: tuple[str, str, str]) -> None:
    colour, marker, label = drawn_as
    auc = points["auc"].to_numpy()
    axes.hlines(
        heights, points["low"].fillna(points["auc"]), points["high"].fillna(points["auc"]), color=colour, linewidth=1.6
    )
    axes.plot(auc, heights, linestyle="", marker=marker, markersize=5, color=colour, label=label)


def _reference(axes: Axes, points: pd.DataFrame) -> None:
    places = np.arange(len(points))
    axes.vlines(points["auc"], places - 0.44, places + 0.44, color="black", linewidth=1.6, label="control: margin only")


def train_test_figure(matrix: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the train x test matrix as a heat map.

    Args:
        matrix: Result of `train_test_matrix`: rows ``all`` and ``without-<attack>``, a column per test attack.
        title: What is shown.

    Returns:
        The figure; cells whose attack was left out of training have a frame.

    Raises:
        DataError: The matrix is empty.
    """
    if matrix.empty:
        raise DataError("expected a train x test matrix with at least one cell, got an empty one")
    from matplotlib.patches import Rectangle

    values = matrix.to_numpy(dtype=float)
    low = min(0.9, float(np.nanmin(values)))
    figure = style.new_figure(1.0 * len(matrix.columns) + 3.2, 0.5 * len(matrix) + 1.7)
    axes = figure.subplots()
    image = axes.imshow(values, cmap="cividis", vmin=low, vmax=1.0, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        dark = (value - low) / (1.0 - low + 1e-12) < DARK_CELL
        text = "–" if np.isnan(value) else f"{value:.3f}"  # noqa: RUF001 - an en dash in a table
        axes.text(
            column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=style.FONT_SIZE
        )
        if matrix.index[row] == f"without-{matrix.columns[column]}":
            axes.add_patch(
                Rectangle((column - 0.47, row - 0.46), 0.94, 0.92, fill=False, edgecolor="#E69F00", linewidth=2.5)
            )
    style.tidy(axes, x_label="tested on", y_label="trained on", grid=False)
    axes.set_xticks(range(len(matrix.columns)), [str(name) for name in matrix.columns], rotation=20, ha="right")
    axes.set_yticks(range(len(matrix)), [_training(str(name)) for name in matrix.index])
    figure.colorbar(image, ax=axes, label="AUC", shrink=0.9)
    style.heading(figure, title)
    return figure


def _training(name: str) -> str:
    return "all attacks" if name == ALL else name.replace("without-", "all but ")
