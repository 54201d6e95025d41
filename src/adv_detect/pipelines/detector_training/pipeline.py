"""Wiring of detector_training."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node

from adv_detect.pipelines.detector_training.nodes import (
    assemble_champion,
    compute_activations,
    make_controls,
    train_detectors,
)
from adv_detect.pipelines.detector_training.tables import collect_histories, fix_thresholds, summarise_detectors


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from adversarial examples to detectors and the model for the registry."""
    return Pipeline(
        [
            node(
                compute_activations,
                inputs=[
                    "adversarials",
                    "network_weights",
                    "representatives",
                    "twin",
                    "params:detector_training",
                    "params:runtime",
                    "params:evaluation",
                ],
                outputs="activations",
                name="compute_activations",
            ),
            node(
                train_detectors,
                inputs=[
                    "activations",
                    "representatives",
                    "params:detector_training",
                    "params:adversarial_generation",
                    "params:runtime",
                ],
                outputs="detectors",
                name="train_detectors",
            ),
            node(
                summarise_detectors,
                inputs=[
                    "detectors",
                    "activations",
                    "representatives",
                    "params:adversarial_generation",
                    "params:runtime",
                ],
                outputs="detector_summary",
                name="summarise_detectors",
            ),
            node(collect_histories, inputs="detectors", outputs="detector_histories", name="collect_histories"),
            node(
                make_controls,
                inputs=["detectors", "detector_summary", "activations", "representatives", "params:runtime"],
                outputs="control_detectors",
                name="make_controls",
            ),
            node(
                fix_thresholds,
                inputs=["detectors", "control_detectors", "params:evaluation"],
                outputs="thresholds",
                name="fix_thresholds",
            ),
            node(
                assemble_champion,
                inputs=[
                    "detectors",
                    "detector_summary",
                    "thresholds",
                    "network_weights",
                    "representatives",
                    "twin",
                    "activations",
                    "params:serving",
                ],
                outputs="champion_model",
                name="assemble_champion",
            ),
        ],
        tags="detector_training",
    )
