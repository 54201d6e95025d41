"""Success curves and example images of adaptive attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from adv_detect.algorithms.roc import Values
from adv_detect.errors import DataError
from adv_detect.measures.adaptive_metrics import UNION
from adv_detect.plots import style
from adv_detect.plots.grid import Cell, GridSizes, by_row, draw_grid, picture_pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EVADING_SIZES = GridSizes(cell=1.25, caption=0.6, margin=0.9, label_size=style.FONT_SIZE - 2)
PANEL_INCHES = (3.6, 3.0)
NORM_LABELS = {"l2": "L2", "linf": "Linf"}


@dataclass(frozen=True)
class EvadingExample:
    """One image that fools the network and passes the detector.

    Attributes:
        row: What stands at the left of its row: attack and detector.
        clean: Image ``(channels, H, W)``, in pixel units of the network.
        adversarial: The attacked image, same shape.
        clean_class: Name of the true class.
        adversarial_class: Name of the class predicted after.
        score: Detector logit of the attacked image.
        threshold: Detector logit above which it would have been caught.
    """

    row: str
    clean: Values
    adversarial: Values
    clean_class: str
    adversarial_class: str
    score: float
    threshold: float


def success_curves(curves: pd.DataFrame, *, fpr: str = "05", title: str = "") -> Figure:
    """Draw the share of lost images against the budget, a panel per detector, classifier, norm and criterion.

    Args:
        curves: Columns detector, classifier, norm, criterion, attack, epsilon, n, and ``success``, ``success_low`` and
            ``success_high`` with the suffix ``_fpr_<fpr>``.
        fpr: False-positive rate of the threshold, as in the column names.
        title: What is shown.

    Returns:
        The figure; the union over all attacks is drawn thick, with its interval.

    Raises:
        DataError: There is no row.
    """
    if curves.empty:
        raise DataError("expected success against at least one epsilon, got no rows")
    panels = list(curves.groupby(["detector", "classifier", "norm", "criterion"], sort=True))
    figure, drawn = style.panels(len(panels), panel=PANEL_INCHES, spare=(1.6, 0.5), share_x=False)
    names = [name for name in dict.fromkeys(curves["attack"]) if name != UNION]
    styles = _curve_styles(names)
    for axes, ((detector, classifier, norm, criterion), part) in zip(drawn, panels, strict=True):
        for name in (*names, UNION):
            _curve(axes, part[part["attack"] == name].sort_values("epsilon"), fpr, name, styles)
        configuration, _, training = str(detector).partition("/")
        judged = "" if classifier == "network" else f", {str(classifier).replace('_', ' ')}"
        style.tidy(
            axes,
            title=f"{configuration}\n{training + ', ' if training else ''}{criterion}{judged}",
            x_label=f"epsilon, {NORM_LABELS.get(str(norm), str(norm))}, pixel units",
            y_label="share of images lost",
        )
        axes.set_ylim(-0.03, 1.03)
    style.joint_legend(figure, drawn)
    style.heading(figure, title)
    return figure


def curve_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give each attack the look of its curve, as arguments of a plot."""
    colours, lines, shapes = style.colours(names), style.line_styles(names), style.markers(names)
    return {
        name: {"color": colours[name], "linestyle": lines[name], "marker": shapes[name], "linewidth": 1.3}
        for name in names
    }


def _curve_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    return curve_styles(names) | {UNION: {"color": style.INK, "linestyle": "-", "marker": "o", "linewidth": 2.4}}


def _curve(axes: Axes, part: pd.DataFrame, fpr: str, name: str, styles: dict[str, dict[str, Any]]) -> None:
    if part.empty:
        return
    x = np.concatenate([[0.0], part["epsilon"].to_numpy(dtype=float)])
    y = np.concatenate([[0.0], part[f"success_fpr_{fpr}"].to_numpy(dtype=float)])
    axes.plot(x, y, markersize=4, label="any attack" if name == UNION else name, **styles[name])
    if name == UNION:
        low, high = (
            np.concatenate([[0.0], part[f"success_{side}_fpr_{fpr}"].to_numpy(dtype=float)]) for side in ("low", "high")
        )
        axes.fill_between(x, low, high, color=style.INK, alpha=0.12, linewidth=0)


def evading_grid(examples: Sequence[EvadingExample], *, bounds: tuple[float, float], title: str = "") -> Figure:
    """Draw images that got through, beside their clean versions, with distortion and detector score.

    Args:
        examples: What to show; examples with the same ``row`` stand in one row, in the given order.
        bounds: Lowest and highest pixel value.
        title: What is shown.

    Returns:
        The figure.

    Raises:
        DataError: There is no example, or an image pair differs in shape.
    """
    rows = by_row([(example.row, _cells(example)) for example in examples])
    return draw_grid(rows, EVADING_SIZES, bounds=bounds, title=title)


def _cells(example: EvadingExample) -> list[Cell]:
    clean, attacked = picture_pair(example.clean, example.adversarial)
    change = attacked - clean
    outcome = (
        f"taken for {example.adversarial_class}\nL2 {np.linalg.norm(change):.3g}  "
        f"Linf {np.abs(change).max():.3g}\nscore {example.score:.3g} (limit {example.threshold:.3g})"
    )
    return [(clean, f"clean\n{example.clean_class}"), (attacked, outcome)]
