"""Wiring of adaptive_attack."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node
from kedro.pipeline.node import Node

from adv_detect.absent import pass_on_absent
from adv_detect.pipelines import (
    adversarial_generation,
    detector_training,
    feature_extraction,
    representatives,
    target_training,
    twin_training,
)
from adv_detect.pipelines.adaptive_attack.figures import SHOWN, draw_adaptive, show_adaptive, write_adaptive_part
from adv_detect.pipelines.adaptive_attack.layer_matching import match_activations
from adv_detect.pipelines.adaptive_attack.nodes import (
    attack_detectors,
    attack_hardened,
    collect_adaptive_records,
    gather_attack_setting,
    harden_detectors,
)
from adv_detect.pipelines.adaptive_attack.substitute import (
    BLOCKS,
    choose_substitute_sources,
    configure_substitute,
    describe_substitute,
    gather_substitute,
)
from adv_detect.pipelines.adaptive_attack.tables import (
    TABLES,
    adaptive_metrics,
    measure_adaptive,
    record_matched,
    store_tables,
)

MAIN_JOB = (
    target_training,
    twin_training,
    feature_extraction,
    representatives,
    adversarial_generation,
    detector_training,
)
WANTED = "detectors"
"""The last dataset of the main job that the attacker needs."""
DIVIDING = "split_sources"
"""The node of the main job in whose place the attacker's images are chosen."""


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from trained detectors to attacks on them, tables, figures and a part of the report."""
    return Pipeline([*_attacking(), *_measuring(), *_showing()], tags="adaptive_attack")


def _attacking() -> list[Any]:
    return [_substitute(), *_attacks()]


def _substitute() -> Pipeline:
    """The main job up to the detectors, run for the attacker; nothing is made where no attack is transferred."""
    job = [one for module in MAIN_JOB for one in module.create_pipeline().nodes]
    own = {f"params:{name}": f"{name}_block" for name in BLOCKS} | {"source_splits": "sources_block"}
    steps = [_for_attacker(one, own) for one in Pipeline(job).to_outputs(WANTED).nodes if one.name != DIVIDING]
    nodes = [
        node(
            configure_substitute,
            inputs=[*(f"params:{name}" for name in BLOCKS), "params:adaptive_attack"],
            outputs=[f"{name}_block" for name in BLOCKS],
            name="configure_substitute",
        ),
        node(
            choose_substitute_sources,
            inputs=["source_splits", "params:adaptive_attack", "runtime_block"],
            outputs="sources_block",
            name="choose_substitute_sources",
        ),
        *steps,
        node(
            gather_substitute,
            inputs=["network_weights", "representatives", "detectors", "twin", "runtime_block"],
            outputs="substitute_models",
            name="gather_substitute",
        ),
        node(
            describe_substitute,
            inputs="substitute_models",
            outputs="substitute_description",
            name="describe_substitute",
        ),
    ]
    return Pipeline(
        nodes,
        namespace="substitute",
        inputs={"train_images", "test_images", "source_splits"},
        outputs={"substitute_models", "substitute_description"},
        parameters={*BLOCKS, "adaptive_attack", "evaluation"},
    )


def _for_attacker(one: Node, own: dict[str, str]) -> Node:
    """A node of the main job that reads the attacker's parameters and images, and passes on what is absent."""
    (output,) = one.outputs
    return node(
        pass_on_absent(one.func), inputs=[own.get(name, name) for name in one.inputs], outputs=output, name=one.name
    )


def _attacks() -> list[Any]:
    detectors, attacks = "params:detector_training", "params:adaptive_attack"
    return [
        node(
            gather_attack_setting,
            inputs=[
                "test_images",
                "network_weights",
                "representatives",
                "activations",
                "twin",
                "substitute_models",
                "params:runtime",
            ],
            outputs="attack_setting",
            name="gather_attack_setting",
        ),
        node(
            attack_detectors,
            inputs=["attack_setting", "detectors", detectors, attacks],
            outputs="adaptive_adversarials",
            name="attack_detectors",
        ),
        node(
            harden_detectors,
            inputs=["attack_setting", "detectors", detectors, attacks],
            outputs="hardened_detectors",
            name="harden_detectors",
        ),
        node(
            attack_hardened,
            inputs=["attack_setting", "hardened_detectors", attacks],
            outputs="hardened_adversarials",
            name="attack_hardened",
        ),
        node(
            match_activations,
            inputs=["attack_setting", attacks],
            outputs="matched_adversarials",
            name="match_activations",
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
            record_matched,
            inputs=["matched_adversarials", "attack_setting", "adaptive_records", "detectors", "hardened_detectors"],
            outputs="matched_records",
            name="record_matched",
        ),
        node(
            measure_adaptive,
            inputs=[
                "adaptive_records",
                "detectors",
                "hardened_detectors",
                "matched_records",
                "attack_setting",
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
                "attack_setting",
                "detectors",
                "params:adaptive_attack",
            ],
            outputs="adaptive_figures",
            name="draw_adaptive",
        ),
        node(
            show_adaptive,
            inputs=["adaptive_figures", "params:runtime"],
            outputs=["adaptive_pictures", *(f"{name}_figure" for name in SHOWN)],
            name="show_adaptive",
        ),
        node(
            write_adaptive_part,
            inputs=[
                "adaptive_tables",
                "adaptive_pictures",
                "hardened_detectors",
                "substitute_description",
                "detector_summary",
            ],
            outputs="adaptive_attack_part",
            name="write_adaptive_part",
        ),
    ]
