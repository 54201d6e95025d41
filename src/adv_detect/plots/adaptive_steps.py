"""Images lost against the steps of an attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from adv_detect.errors import DataError
from adv_detect.plots import style
from adv_detect.plots.adaptive import NORM_LABELS, PANEL_HEIGHT, PANEL_WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PANELS = 12


def step_curves(steps: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the share of lost images against the steps taken, a panel per detector and budget, a line per attack.

    Args:
        steps: Columns detector, criterion, norm, epsilon, attack, steps, lost.
        title: What is shown.

    Returns:
        The figure, of the first `MAX_PANELS` detectors and budgets.

    Raises:
        DataError: There is no row.
    """
    if steps.empty:
        raise DataError("expected images lost after at least one number of steps, got no rows")
    panels = list(steps.groupby(["detector", "norm", "epsilon", "criterion"], sort=True))[:MAX_PANELS]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = style.new_figure(PANEL_WIDTH * columns + 1.6, PANEL_HEIGHT * rows + 0.5)
    drawn = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    names = sorted(steps["attack"].unique())
    colours, lines, shapes = style.colours(names), style.line_styles(names), style.markers(names)
    for axes, ((detector, norm, epsilon, criterion), part) in zip(drawn, panels, strict=False):
        for name in (one for one in names if one in set(part["attack"])):
            line = part[part["attack"] == name]
            axes.plot(line["steps"], line["lost"], label=name, color=colours[name], linestyle=lines[name],
                      marker=shapes[name], markersize=4, linewidth=1.3)  # fmt: skip
        budget = f"{NORM_LABELS.get(str(norm), str(norm))} {epsilon:.3g}"
        style.tidy(axes, title=f"{detector}\n{budget}, {criterion}", x_label="steps", y_label="share of images lost")
        axes.set_xscale("log")
        axes.set_ylim(-0.03, 1.03)
    for axes in drawn[len(panels) :]:
        axes.set_visible(False)
    handles = {label: handle for axes in drawn for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        handles.values(), handles.keys(), fontsize=style.FONT_SIZE - 1, loc="outside right upper", frameon=False
    )
    style.heading(figure, title)
    return figure
