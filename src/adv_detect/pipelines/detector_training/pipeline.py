"""Wiring of detector_training."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node

from adv_detect.pipelines.detector_training.nodes import (
    assemble_champion,
    collect_histories,
    compute_trajectories,
    summarise_detectors,
    train_detectors,
)


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from adversarial examples to detectors and the model for the registry."""
    return Pipeline(
        [
            node(
                compute_trajectories,
                inputs=[
                    "adversarials",
                    "network_weights",
                    "representatives",
                    "params:detector_training",
                    "params:runtime",
                ],
                outputs="trajectories",
                name="compute_trajectories",
            ),
            node(
                train_detectors,
                inputs=[
                    "trajectories",
                    "params:detector_training",
                    "params:adversarial_generation",
                    "params:evaluation",
                    "params:runtime",
                ],
                outputs="detectors",
                name="train_detectors",
            ),
            node(summarise_detectors, inputs="detectors", outputs="detector_summary", name="summarise_detectors"),
            node(collect_histories, inputs="detectors", outputs="detector_histories", name="collect_histories"),
            node(
                assemble_champion,
                inputs=["detectors", "detector_summary", "network_weights", "representatives", "params:serving"],
                outputs="champion_model",
                name="assemble_champion",
            ),
        ],
        tags="detector_training",
    )
