"""Wiring of twin_training."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node

from adv_detect.pipelines.twin_training.nodes import describe_twin, train_twin


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from images to the twin of the network under attack."""
    return Pipeline(
        [
            node(
                train_twin,
                inputs=["train_images", "network_weights", "params:twin_training", "params:runtime"],
                outputs="twin",
                name="train_twin",
            ),
            node(
                describe_twin,
                inputs="twin",
                outputs=["twin_description", "twin_metrics"],
                name="describe_twin",
            ),
        ],
        tags="twin_training",
    )
