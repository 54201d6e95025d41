"""Images lost against the steps of an attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from adv_detect.errors import DataError
from adv_detect.plots import style
from adv_detect.plots.adaptive import NORM_LABELS, PANEL_INCHES, curve_styles

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
    figure, drawn = style.panels(len(panels), panel=PANEL_INCHES, spare=(1.6, 0.5), share_x=False)
    names = sorted(steps["attack"].unique())
    styles = curve_styles(names)
    for axes, ((detector, norm, epsilon, criterion), part) in zip(drawn, panels, strict=True):
        for name in (one for one in names if one in set(part["attack"])):
            line = part[part["attack"] == name]
            axes.plot(line["steps"], line["lost"], label=name, markersize=4, **styles[name])
        budget = f"{NORM_LABELS.get(str(norm), str(norm))} {epsilon:.3g}"
        style.tidy(axes, title=f"{detector}\n{budget}, {criterion}", x_label="steps", y_label="share of images lost")
        axes.set_xscale("log")
        axes.set_ylim(-0.03, 1.03)
    style.joint_legend(figure, drawn)
    style.heading(figure, title)
    return figure
