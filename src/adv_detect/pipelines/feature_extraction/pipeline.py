"""Wiring of feature_extraction."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node

from adv_detect.pipelines.feature_extraction.nodes import extract_class_features


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from training images to features per class and layer."""
    return Pipeline(
        [
            node(
                extract_class_features,
                inputs=["train_images", "network_weights", "params:feature_extraction", "params:runtime"],
                outputs="features",
                name="extract_class_features",
            ),
        ],
        tags="feature_extraction",
    )
