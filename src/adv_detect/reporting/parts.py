"""A report in parts: each pipeline writes its own, the page joins those that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from adv_detect.algorithms.plots.style import figure_bytes
from adv_detect.reporting.blocks import Block, Figure, Fold, Report
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


def drawn_part(report: Report, made_from: str) -> ReportPart:
    """Draw the figures of a part, so that it can be kept and joined to others without drawing them again.

    Args:
        report: The sections.
        made_from: Identity of the detectors that the sections speak of.

    Returns:
        The part, with files for figures.
    """
    sections = [replace(section, blocks=[_drawn(block) for block in section.blocks]) for section in report.sections]
    return ReportPart(replace(report, sections=sections), made_from)


def _drawn(block: Block) -> Block:
    if isinstance(block, Fold):
        return replace(block, blocks=[_drawn(inner) for inner in block.blocks])
    if isinstance(block, Figure) and not isinstance(block.figure, bytes):
        return replace(block, figure=figure_bytes(block.figure, block.file_format))
    return block


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
