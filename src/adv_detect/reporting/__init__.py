"""The HTML report: sections of blocks, rendered to one self-contained page."""

from __future__ import annotations

from adv_detect.reporting.blocks import (
    Block,
    Bullets,
    Card,
    Cards,
    Facts,
    Figure,
    Fold,
    Note,
    Report,
    Section,
    Table,
    Text,
)
from adv_detect.reporting.evaluation import EvaluationResults, chosen_detector, evaluation_sections
from adv_detect.reporting.parts import ReportPart, drawn_part, render_parts
from adv_detect.reporting.render import render_report

__all__ = [
    "Block",
    "Bullets",
    "Card",
    "Cards",
    "EvaluationResults",
    "Facts",
    "Figure",
    "Fold",
    "Note",
    "Report",
    "ReportPart",
    "Section",
    "Table",
    "Text",
    "chosen_detector",
    "drawn_part",
    "evaluation_sections",
    "render_parts",
    "render_report",
]
