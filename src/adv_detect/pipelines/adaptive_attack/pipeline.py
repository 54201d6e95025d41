"""Wiring of adaptive_attack."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node

from adv_detect.pipelines.adaptive_attack.figures import SHOWN, draw_adaptive, show_adaptive, write_adaptive_part
from adv_detect.pipelines.adaptive_attack.nodes import (
    attack_detectors,
    attack_hardened,
    collect_adaptive_records,
    describe_substitute,
    harden_detectors,
    set_scene,
    train_substitute,
)
from adv_detect.pipelines.adaptive_attack.tables import TABLES, adaptive_metrics, measure_adaptive, store_tables

RECIPE = (
    "network",
    "target_training",
    "representatives",
    "adversarial_generation",
    "detector_training",
    "adaptive_attack",
    "runtime",
)


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from trained detectors to attacks on them, tables, figures and a part of the report."""
    return Pipeline([*_attacking(), *_measuring(), *_showing()], tags="adaptive_attack")


def _attacking() -> list[Any]:
    return [*_substitute(), *_attacks()]


def _substitute() -> list[Any]:
    return [
        node(
            describe_substitute,
            inputs=[f"params:{name}" for name in RECIPE],
            outputs="substitute_recipe",
            name="describe_substitute",
        ),
        node(
            train_substitute,
            inputs=["train_images", "test_images", "source_splits", "substitute_recipe", "params:runtime"],
            outputs="substitute",
            name="train_substitute",
        ),
    ]


def _attacks() -> list[Any]:
    detectors, attacks = "params:detector_training", "params:adaptive_attack"
    return [
        node(
            set_scene,
            inputs=[
                "test_images",
                "network_weights",
                "representatives",
                "activations",
                "substitute",
                "params:runtime",
            ],
            outputs="adaptive_scene",
            name="set_adaptive_scene",
        ),
        node(
            attack_detectors,
            inputs=["adaptive_scene", "detectors", detectors, attacks],
            outputs="adaptive_adversarials",
            name="attack_detectors",
        ),
        node(
            harden_detectors,
            inputs=["adaptive_scene", "detectors", detectors, attacks],
            outputs="hardened_detectors",
            name="harden_detectors",
        ),
        node(
            attack_hardened,
            inputs=["adaptive_scene", "hardened_detectors", attacks],
            outputs="hardened_adversarials",
            name="attack_hardened",
        ),
        node(
            collect_adaptive_records,
            inputs=["adaptive_adversarials", "hardened_adversarials"],
            outputs="adaptive_records",
            name="collect_adaptive_records",
        ),
    ]


def _measuring() -> list[Any]:
    return [
        node(
            measure_adaptive,
            inputs=[
                "adaptive_records",
                "detectors",
                "hardened_detectors",
                "activations",
                "representatives",
                "params:adaptive_attack",
                "params:adversarial_generation",
                "params:evaluation",
            ],
            outputs="adaptive_tables",
            name="measure_adaptive",
        ),
        node(
            store_tables,
            inputs="adaptive_tables",
            outputs=[f"adaptive_{name}_{form}" for form in ("table", "csv") for name in TABLES],
            name="store_adaptive_tables",
        ),
        node(
            adaptive_metrics,
            inputs="adaptive_tables",
            outputs="adaptive_metrics",
            name="adaptive_metrics",
        ),
    ]


def _showing() -> list[Any]:
    return [
        node(
            draw_adaptive,
            inputs=[
                "adaptive_records",
                "adaptive_tables",
                "adaptive_adversarials",
                "adaptive_scene",
                "detectors",
                "params:adaptive_attack",
            ],
            outputs="adaptive_figures",
            name="draw_adaptive",
        ),
        node(
            show_adaptive,
            inputs="adaptive_figures",
            outputs=["adaptive_pictures", *(f"{name}_figure" for name in SHOWN)],
            name="show_adaptive",
        ),
        node(
            write_adaptive_part,
            inputs=["adaptive_tables", "adaptive_pictures", "hardened_detectors", "substitute", "detector_summary"],
            outputs="adaptive_attack_part",
            name="write_adaptive_part",
        ),
    ]
