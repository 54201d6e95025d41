"""Wiring of representatives."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node

from adv_detect.pipelines.representatives.nodes import compute_representatives


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from features to class representatives."""
    return Pipeline(
        [
            node(
                compute_representatives,
                inputs=["features", "network_weights", "params:representatives", "params:runtime"],
                outputs="representatives",
                name="compute_representatives",
            ),
        ],
        tags="representatives",
    )
