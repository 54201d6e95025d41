"""Wiring of reporting."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node

from adv_detect.pipelines.reporting.nodes import rank_detectors, render_report
from adv_detect.reporting import PARTS


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from parts of the report to its page; each pipeline that writes a part ends with it."""
    parts = {name: name for name in ("detector_summary", *PARTS)}
    return Pipeline(
        [
            node(
                rank_detectors,
                inputs=parts,
                outputs=["leaderboard", "leaderboard_csv", "leaderboard_metrics"],
                name="rank_detectors",
            ),
            node(
                render_report,
                inputs=parts | {"leaderboard": "leaderboard"},
                outputs="report",
                name="render_report",
            ),
        ],
        tags="reporting",
    )
