"""Wiring of target_training."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node

from adv_detect.pipelines.target_training.nodes import describe_target, train_target


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from images to the network under attack."""
    return Pipeline(
        [
            node(
                train_target,
                inputs=[
                    "train_images",
                    "test_images",
                    "params:network",
                    "params:target_training",
                    "params:runtime",
                ],
                outputs="network_weights",
                name="train_target",
            ),
            node(
                describe_target,
                inputs="network_weights",
                outputs=["target_description", "target_metrics"],
                name="describe_target",
            ),
        ],
        tags="target_training",
    )
