"""ROC curves per attack, on a linear and on a logarithmic axis of false positives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from adv_detect.algorithms.roc import FloatArray, Values, area, check_scores, curve
from adv_detect.errors import DataError
from adv_detect.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKED_RATES = (0.01, 0.05, 0.10)


def roc_figure(
    natural: Values, adversarial: Mapping[str, Values], *, title: str = "", floor: float | None = None
) -> Figure:
    """Draw one ROC curve per attack, twice: over all false-positive rates and, logarithmically, over small ones.

    Args:
        natural: Scores of natural images ``(Q,)``.
        adversarial: Scores ``(P,)`` per attack; attacks without any score are left out.
        title: What is shown, above both panels.
        floor: Least false-positive rate of the logarithmic panel; by default half of what one natural image makes.

    Returns:
        The figure; the legend names n and AUC.

    Raises:
        DataError: A score is NaN, or there is no natural or no adversarial score.
    """
    negatives = check_scores(natural, name="natural scores")
    positives = {name: check_scores(values, name=f"scores of {name!r}") for name, values in adversarial.items()}
    positives = {name: values for name, values in positives.items() if len(values)}
    if not len(negatives) or not positives:
        raise DataError(f"expected natural and adversarial scores, got {len(negatives)} and {len(positives)} attacks")
    figure = style.new_figure(10.0, 4.4)
    linear, logarithmic = figure.subplots(1, 2)
    least = floor if floor is not None else 0.5 / len(negatives)
    colours, lines = style.colours(positives), style.line_styles(positives)
    for name, values in positives.items():
        label = f"{name}  AUC {area(values, negatives):.3f}  (n = {len(values):,})"
        fpr, tpr = _steps(values, negatives)
        for axes in (linear, logarithmic):
            axes.plot(
                np.maximum(fpr, least), tpr, color=colours[name], linestyle=lines[name], linewidth=1.6, label=label
            )
    diagonal = np.geomspace(least, 1.0, 200)
    for axes in (linear, logarithmic):
        axes.plot(diagonal, diagonal, color=style.CONTROL_COLOUR, linewidth=0.8, linestyle=":", label="chance")
        axes.set_ylim(-0.02, 1.02)
    logarithmic.set_xscale("log")
    logarithmic.set_xlim(least, 1.0)
    for rate in MARKED_RATES:
        logarithmic.axvline(rate, color=style.GRID, linewidth=1.0, zorder=0)
    x_label = f"false-positive rate (natural images flagged, n = {len(negatives):,})"
    style.tidy(linear, title="all operating points", x_label=x_label, y_label="detection rate")
    style.tidy(logarithmic, title="few false alarms (log axis)", x_label=x_label, y_label="detection rate")
    linear.legend(fontsize=style.FONT_SIZE - 1.5, loc="lower right", framealpha=0.9)
    style.heading(figure, title)
    return figure


def _steps(positives: FloatArray, negatives: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Corner points of the curve; points on a straight run are left out, which keeps the drawing small."""
    roc = curve(positives, negatives)
    flat = (np.diff(roc.fpr[:-1]) == 0) & (np.diff(roc.fpr[1:]) == 0)
    steep = (np.diff(roc.tpr[:-1]) == 0) & (np.diff(roc.tpr[1:]) == 0)
    keep = np.concatenate([[True], ~(flat | steep), [True]])
    return roc.fpr[keep], roc.tpr[keep]
