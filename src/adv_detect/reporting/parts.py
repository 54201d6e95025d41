"""A report in parts: each pipeline writes its own, the page joins those that belong together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from adv_detect.errors import DataError
from adv_detect.reporting.blocks import Report, Section
from adv_detect.reporting.render import render_report
from adv_detect.sharding import fingerprint

LOGGER = logging.getLogger(__name__)
SUFFIX = "_part"
PARTS = ("evaluation_part", "adaptive_attack_part", "face_recognition_part", "calibration_part")
"""Datasets of the parts, ``<pipeline>_part``, in the order of the page."""
LAST_SECTIONS = ("Limits", "Provenance")


@dataclass(frozen=True)
class ReportPart:
    """Sections that one pipeline adds.

    Attributes:
        report: The sections; title and subtitle of the first part head the page.
        made_from: Identity of the detectors that the sections speak of.
        tables: Tables for what is made of several parts, by name.
    """

    report: Report
    made_from: str
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def detectors_identity(summary: pd.DataFrame) -> str:
    """Identify the detectors that a part of the report speaks of.

    Args:
        summary: One row per trained detector, with ``detector`` and ``validation_macro_auc``.

    Returns:
        A fingerprint, whatever the order of the rows.
    """
    ordered = summary.sort_values("detector")
    return fingerprint(ordered["detector"].tolist(), [f"{value:.9f}" for value in ordered["validation_macro_auc"]])


def render_parts(parts: Mapping[str, ReportPart | None], made_from: str, *, after_first: Sequence[Section] = ()) -> str:
    """Render one page from the parts that speak of the same detectors; others are left out with a warning.

    Args:
        parts: The parts by name of their dataset, None where a pipeline has not run. The first one that fits heads the
            page; the sections of the others stand before its limits and provenance.
        made_from: Identity of the detectors on disk.
        after_first: Sections that stand after the first one of the page, the summary.

    Returns:
        One self-contained HTML page.

    Raises:
        DataError: No part fits.
    """
    fitting = [part for name, part in parts.items() if part is not None and _fits(name, part, made_from)]
    if not fitting:
        raise DataError(
            f"report: expected a part about the detectors on disk among {list(parts)}, got none; "
            "run first: kedro run --pipeline=evaluation"
        )
    first, *further = fitting
    own = list(first.report.sections)
    end = next((place for place, section in enumerate(own) if section.title in LAST_SECTIONS), len(own))
    added = [section for part in further for section in part.report.sections]
    return render_report(replace(first.report, sections=[*own[:1], *after_first, *own[1:end], *added, *own[end:]]))


def _fits(name: str, part: ReportPart, made_from: str) -> bool:
    if part.made_from == made_from:
        return True
    pipeline = name.removesuffix(SUFFIX)
    LOGGER.warning(
        "report: the sections of %s speak of other detectors than those on disk and are left out; "
        "make them anew with: kedro run --pipeline=%s", pipeline, pipeline,
    )  # fmt: skip
    return False
