"""Wiring of reporting."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node

from adv_detect.pipelines.reporting.nodes import render_report
from adv_detect.reporting import PARTS


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from the parts of the report to its page; each pipeline that writes a part ends with it."""
    inputs = {name: name for name in ("detector_summary", *PARTS)}
    return Pipeline([node(render_report, inputs=inputs, outputs="report", name="render_report")], tags="reporting")
