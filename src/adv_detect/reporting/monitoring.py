"""The page of the watch over scored images."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from adv_detect.params import MonitoringParams
from adv_detect.reporting.blocks import Block, Figure, Note, Report, Section, Table, Text, prose

HEADERS = {"fpr": "nominal rate", "expected": "expected of clean images", "p_value": "p-value"}
ALARMS = {
    "flag_rate": "more images are flagged than clean ones would be",
    "scores": "scores are distributed otherwise than those of clean images",
    "classes": "other classes are predicted than on clean images",
    "near_copies": "a group of images are nearly copies of each other, as the queries of an attacker are",
}
TEXTS = {
    name: prose(text)
    for name, text in {
        "rates": """
            Share of flagged images per span of {hours:g} hours, and the middle 95 % of what clean images of the
            calibration's kind would give: the threshold rests on a limited number of them, which widens the band.
        """,
        "drift": """
            **Scores** against the clean ones that the thresholds rest on (Kolmogorov and Smirnov): distance
            {score:.3f}, p = {score_p:.2g}. **Predicted classes** against clean validation images (chi squared):
            {classes:.4g}, p = {classes_p:.2g}. Drift says that something has changed: other pictures, other people, or
            attacks. It cannot tell these apart.
        """,
        "copies": """
            Images are put into one group where the sketches of their features differ in at most {near:.0%} of the bits.
            An attacker who asks for decisions, many times, about one image that he changes a little each time shows as
            a large group with many different digests, and often with two classes. A camera that sees one scene, or a
            client that sends the same picture again, shows as well. Not seen is who asks few times, who attacks a
            model of his own first, or who changes his image by more than that from one query to the next.
        """,
    }.items()
}


def monitoring_report(
    rates: pd.DataFrame,
    copies: pd.DataFrame,
    metrics: Mapping[str, float],
    figure: bytes,
    params: MonitoringParams,
) -> Report:
    """Write the page.

    Args:
        rates: Flag rates over time.
        copies: Groups of near-copies.
        metrics: Figures and alarms by name.
        figure: PNG file of the flag rate.
        params: The levels.

    Returns:
        The page.
    """
    get = {name.removeprefix("monitoring/"): value for name, value in metrics.items()}
    raised = [words for name, words in ALARMS.items() if get[f"alarm/{name}"]]
    note = Note(f"ALARM: {'; '.join(raised)}.", "caution") if raised else Note("No alarm.", "good")
    drift = TEXTS["drift"].format(
        score=get["scores/statistic"], score_p=get["scores/p_value"],
        classes=get["classes/statistic"], classes_p=get["classes/p_value"],
    )  # fmt: skip
    shown = rates.assign(start=_seconds(rates["start"]))
    formats = dict.fromkeys(("rate", "expected", "low", "high"), ".1%")
    first: list[Block] = [
        note,
        Figure(figure, TEXTS["rates"].format(hours=params.hours), "share of flagged images over time"),
        Table(shown, "Flagged images per span, times in UTC.", formats, HEADERS),
    ]
    groups: list[Block] = [Text(TEXTS["copies"].format(near=params.near))]
    if len(copies):
        largest = copies.head(20).assign(first=_seconds(copies["first"]), last=_seconds(copies["last"]))
        groups.append(Table(largest, "The largest groups, times in UTC.", {"flagged": ".1%"}))
    sections = [Section("Flagged images", first), Section("Drift", [Text(drift)]), Section("Near-copies", groups)]
    return Report("Watch over scored images", f"{int(get['n']):,} images", sections)


def _seconds(times: pd.Series) -> pd.Series:
    """Points in time as texts to the second, UTC."""
    texts: pd.Series = times.dt.strftime("%Y-%m-%d %H:%M:%S")
    return texts
