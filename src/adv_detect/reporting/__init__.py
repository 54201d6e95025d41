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
from adv_detect.reporting.leaderboard import (
    LEADERBOARD,
    LOST,
    leaderboard_metrics,
    leaderboard_section,
    lost_table,
    with_lost,
)
from adv_detect.reporting.parts import PARTS, ReportPart, detectors_identity, render_parts
from adv_detect.reporting.pictures import draw_pictures
from adv_detect.reporting.render import render_report

__all__ = [
    "LEADERBOARD",
    "LOST",
    "PARTS",
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
    "detectors_identity",
    "draw_pictures",
    "evaluation_sections",
    "leaderboard_metrics",
    "leaderboard_section",
    "lost_table",
    "render_parts",
    "render_report",
    "with_lost",
]
