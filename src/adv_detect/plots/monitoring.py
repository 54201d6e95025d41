"""The flag rate over time, with the band of clean images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from adv_detect.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DAY = pd.Timedelta(days=1)
"""Shown before and after a single point."""


def flag_rate_figure(rates: pd.DataFrame) -> Figure:
    """Draw the share of flagged images over time.

    Args:
        rates: Result of :func:`adv_detect.measures.monitoring.flag_rates`.

    Returns:
        The figure: a panel per rate of the verdict; the band holds 95 % of what clean images give.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    fprs = sorted(rates["fpr"].unique())
    figure, panels = style.panels(len(fprs), panel=(7.0, 2.8), most_columns=1)
    for axes, fpr in zip(panels, fprs, strict=True):
        rows = rates[rates["fpr"] == fpr].sort_values("start")
        times = rows["start"].dt.tz_localize(None)
        axes.vlines(times, 100 * rows["low"], 100 * rows["high"], color=style.NATURAL_COLOUR, alpha=0.35, lw=6)
        axes.plot(times, 100 * rows["rate"], "o-", color=style.ADVERSARIAL_COLOUR, ms=4, lw=1)
        style.tidy(axes, title=f"verdicts at {fpr:g}", x_label="time (UTC)", y_label="flagged, %")
        axes.set_ylim(bottom=0)
        if len(times) == 1:
            axes.set_xlim(times.iloc[0] - DAY, times.iloc[0] + DAY)
        locator = AutoDateLocator()  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    return figure
