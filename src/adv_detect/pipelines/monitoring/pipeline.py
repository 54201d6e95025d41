"""Wiring of monitoring."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node

from adv_detect.pipelines.monitoring import nodes

PARAMS = "params:monitoring"


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from a log of scored images to one page."""
    return Pipeline(
        [
            node(nodes.read_log, inputs=PARAMS, outputs="scoring_log", name="read_log"),
            node(
                nodes.watch,
                inputs=["scoring_log", "champion_model", "scores", PARAMS],
                outputs=["monitoring_rates", "monitoring_copies", "monitoring_metrics"],
                name="watch",
            ),
            node(
                nodes.draw_rates,
                inputs="monitoring_rates",
                outputs=["monitoring_picture", "monitoring_rates_figure"],
                name="draw_rates",
            ),
            node(
                nodes.write_monitoring_page,
                inputs=["monitoring_rates", "monitoring_copies", "monitoring_metrics", "monitoring_picture", PARAMS],
                outputs="monitoring_page",
                name="write_monitoring_page",
            ),
        ],
        tags="monitoring",
    )
