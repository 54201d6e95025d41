"""A report in parts: each pipeline writes its own, the page joins those that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from adv_detect.reporting.blocks import Report
from adv_detect.reporting.render import render_report

LAST_SECTIONS = ("Limits", "Provenance")


@dataclass(frozen=True)
class ReportPart:
    """Sections that one pipeline adds.

    Attributes:
        report: The sections; title and subtitle of the first part head the page.
        made_from: Identity of the detectors that the sections speak of.
    """

    report: Report
    made_from: str


def render_parts(first: ReportPart, further: Sequence[ReportPart]) -> str:
    """Render one page from several parts.

    Args:
        first: The part with title, summary, limits and provenance.
        further: Parts whose sections stand before the limits.

    Returns:
        One self-contained HTML page.
    """
    own = list(first.report.sections)
    end = next((place for place, section in enumerate(own) if section.title in LAST_SECTIONS), len(own))
    added = [section for part in further for section in part.report.sections]
    return render_report(replace(first.report, sections=[*own[:end], *added, *own[end:]]))
