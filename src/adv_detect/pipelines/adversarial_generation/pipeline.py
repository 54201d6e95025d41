"""Wiring of adversarial_generation."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node

from adv_detect.pipelines.adversarial_generation.nodes import collect_records, generate_adversarials, split_sources


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from source images to adversarial examples and their records."""
    return Pipeline(
        [
            node(
                split_sources,
                inputs=["test_images", "params:splits", "params:runtime"],
                outputs="source_splits",
                name="split_sources",
            ),
            node(
                generate_adversarials,
                inputs=[
                    "test_images",
                    "network_weights",
                    "representatives",
                    "source_splits",
                    "params:adversarial_generation",
                    "params:runtime",
                    "params:detector_training",
                ],
                outputs="adversarials",
                name="generate_adversarials",
            ),
            node(
                collect_records,
                inputs=["adversarials", "params:adversarial_generation"],
                outputs=["attack_records", "attack_timings"],
                name="collect_records",
            ),
        ],
        tags="adversarial_generation",
    )
