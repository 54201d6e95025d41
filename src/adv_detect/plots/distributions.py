"""Distributions of scores and of distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from adv_detect.algorithms.roc import FloatArray, Values, check_scores
from adv_detect.errors import DataError
from adv_detect.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 40
CLIP_PERCENT = 0.2


def score_histograms(
    natural: Values, adversarial: Mapping[str, Values], *, threshold: float | None = None, title: str = ""
) -> Figure:
    """Draw the scores of natural images against those of each attack, one panel per attack.

    Args:
        natural: Scores of natural images ``(Q,)``.
        adversarial: Scores ``(P,)`` per attack; attacks without any score are left out.
        threshold: A threshold to mark.
        title: What is shown.

    Returns:
        The figure. Panels share their axes; the outermost scores are drawn in the outermost bins.

    Raises:
        DataError: A score is NaN, or there is no natural or no adversarial score.
    """
    samples = _samples({"natural": natural, **adversarial})
    clean = samples.pop("natural", None)
    if clean is None or not samples:
        raise DataError(f"expected natural and adversarial scores, got {0 if clean is None else len(clean)} natural "
                        f"scores and {len(samples)} attacks")  # fmt: skip
    edges = _edges([clean, *samples.values()])
    figure, panels = style.panels(len(samples), panel=(3.4, 2.0), spare=(0.4, 0.8))
    for axes, (name, values) in zip(panels, samples.items(), strict=True):
        _histogram(axes, clean, edges, style.NATURAL_COLOUR, f"natural (n = {len(clean):,})")
        _histogram(axes, values, edges, style.ADVERSARIAL_COLOUR, "adversarial")
        if threshold is not None:
            axes.axvline(threshold, color=style.INK, linewidth=1.0, linestyle="--", label="threshold")
        style.tidy(axes, title=f"{name} (n = {len(values):,})", x_label="score (logit)", y_label="share of images")
    for axes in panels:
        axes.label_outer()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=style.FONT_SIZE - 1, loc="outside lower center", ncols=3, frameon=False)
    style.heading(figure, title)
    return figure


def _samples(groups: Mapping[str, Values]) -> dict[str, FloatArray]:
    checked = {name: check_scores(values, name=f"scores of {name!r}") for name, values in groups.items()}
    return {name: values for name, values in checked.items() if len(values)}


def _edges(samples: Sequence[FloatArray]) -> FloatArray:
    pooled = np.concatenate(samples)
    low, high = np.percentile(pooled, [CLIP_PERCENT, 100.0 - CLIP_PERCENT])
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def _histogram(axes: Axes, values: FloatArray, edges: FloatArray, colour: str, label: str) -> None:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)
    axes.stairs(counts / len(values), edges, fill=True, color=colour, alpha=0.35)
    axes.stairs(counts / len(values), edges, color=colour, linewidth=1.2, label=label)


def distance_distributions(
    panels: Mapping[str, Mapping[str, Values]],
    *,
    x_label: str = "distance from the class representative",
    title: str = "",
) -> Figure:
    """Draw distributions side by side, one panel per family; for instance label-focused and deep-features attacks.

    Args:
        panels: Per panel, distances ``(n,)`` per group; empty groups are left out.
        x_label: What the distances are, with the unit.
        title: What is shown.

    Returns:
        The figure; panels share the axis of distances, the median of each group is marked and named.

    Raises:
        DataError: A distance is NaN, or nothing is left to draw.
    """
    samples = {panel: found for panel, groups in panels.items() if (found := _samples(groups))}
    if not samples:
        raise DataError("expected at least one group of distances, got none")
    edges = _edges([values for groups in samples.values() for values in groups.values()])
    figure, drawn = style.panels(len(samples), panel=(5.0, 3.8), most_columns=len(samples))
    for axes, (panel, groups) in zip(drawn, samples.items(), strict=True):
        colours = style.colours(groups) | {"natural": style.NATURAL_COLOUR}
        for name, values in groups.items():
            median = float(np.median(values))
            _histogram(axes, values, edges, colours[name], f"{name}: median {median:.3g} (n = {len(values):,})")
            axes.axvline(median, color=colours[name], linewidth=1.2, linestyle="--")
        style.tidy(axes, title=panel, x_label=x_label, y_label="share of images")
        axes.legend(fontsize=style.FONT_SIZE - 1.5, framealpha=0.85)
        axes.label_outer()
    style.heading(figure, title)
    return figure
