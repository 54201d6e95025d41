"""Wiring of calibration."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node

from adv_detect.pipelines.calibration import nodes

PARAMS = "params:calibration"
RUNTIME = "params:runtime"


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from clean pictures to a model with thresholds of their own."""
    return Pipeline(
        [
            node(
                nodes.score_clean_pictures,
                inputs=["champion_model", PARAMS, RUNTIME],
                outputs="calibration_scores",
                name="score_clean_pictures",
            ),
            node(
                nodes.compare_thresholds,
                inputs=["champion_model", "calibration_scores", PARAMS, RUNTIME],
                outputs=["calibration_rates", "calibration_rates_csv", "calibration_check"],
                name="compare_thresholds",
            ),
            node(
                nodes.calibrate,
                inputs=[
                    "champion_model",
                    "calibration_scores",
                    "calibration_rates",
                    "calibration_check",
                    PARAMS,
                    "params:serving",
                ],
                outputs="calibrated_model",
                name="calibrate",
            ),
            node(
                nodes.summarise_calibration,
                inputs=["calibration_rates", "calibration_check"],
                outputs="calibration_metrics",
                name="summarise_calibration",
            ),
            node(
                nodes.write_calibration_part,
                inputs=["calibration_scores", "calibration_rates", "calibration_check", "detector_summary", PARAMS],
                outputs="calibration_part",
                name="write_calibration_part",
            ),
        ],
        tags="calibration",
    )
