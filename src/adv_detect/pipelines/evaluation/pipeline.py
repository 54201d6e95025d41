"""Wiring of evaluation."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node

from adv_detect.pipelines.evaluation.benign import (
    compute_benign_activations,
    draw_benign_changes,
    measure_benign_changes,
)
from adv_detect.pipelines.evaluation.comparison import compare_detectors, measure_detector_costs
from adv_detect.pipelines.evaluation.figures import (
    SHOWN,
    draw_detection,
    draw_inputs,
    show_figures,
    write_evaluation_part,
)
from adv_detect.pipelines.evaluation.nodes import (
    compute_control_activations,
    measure_classes,
    measure_detection,
    score_images,
)


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from trained detectors to scores, metrics, figures and a part of the report."""
    return Pipeline([*_measuring(), *_benign(), *_comparing(), *_showing()], tags="evaluation")


def _measuring() -> list[Any]:
    return [
        node(
            compute_control_activations,
            inputs=[
                "adversarials",
                "network_weights",
                "representatives",
                "twin",
                "detectors",
                "params:adversarial_generation",
                "params:runtime",
            ],
            outputs="control_activations",
            name="compute_control_activations",
        ),
        node(
            score_images,
            inputs=[
                "activations",
                "control_activations",
                "detectors",
                "control_detectors",
                "thresholds",
                "representatives",
                "params:adversarial_generation",
                "params:evaluation",
                "params:runtime",
            ],
            outputs="scores",
            name="score_images",
        ),
        node(
            measure_detection,
            inputs=[
                "scores",
                "detector_summary",
                "params:adversarial_generation",
                "params:evaluation",
                "params:runtime",
            ],
            outputs=["detection_metrics", "detection_metrics_csv", "auc_resamples"],
            name="measure_detection",
        ),
        node(
            measure_classes,
            inputs=["scores", "detector_summary", "params:evaluation", "params:runtime"],
            outputs=["class_false_alarms", "class_false_alarms_csv"],
            name="measure_classes",
        ),
    ]


def _benign() -> list[Any]:
    return [
        node(
            compute_benign_activations,
            inputs=[
                "adversarials",
                "network_weights",
                "representatives",
                "twin",
                "detectors",
                "params:evaluation",
                "params:runtime",
            ],
            outputs="benign_activations",
            name="compute_benign_activations",
        ),
        node(
            measure_benign_changes,
            inputs=[
                "benign_activations",
                "activations",
                "detectors",
                "control_detectors",
                "detector_summary",
                "thresholds",
                "representatives",
                "params:evaluation",
                "params:runtime",
            ],
            outputs=["benign_changes", "benign_changes_csv", "benign_metrics"],
            name="measure_benign_changes",
        ),
        node(
            draw_benign_changes,
            inputs="benign_changes",
            outputs="benign_figures",
            name="draw_benign_changes",
        ),
    ]


def _comparing() -> list[Any]:
    return [
        node(
            measure_detector_costs,
            inputs=[
                "adversarials",
                "network_weights",
                "representatives",
                "twin",
                "detectors",
                "control_detectors",
                "detection_metrics",
                "params:runtime",
            ],
            outputs="detector_costs",
            name="measure_detector_costs",
        ),
        node(
            compare_detectors,
            inputs=["detection_metrics", "auc_resamples", "benign_changes", "detector_costs", "params:evaluation"],
            outputs="measured_leaderboard",
            name="compare_detectors",
        ),
    ]


def _showing() -> list[Any]:
    return [
        node(
            draw_detection,
            inputs=[
                "scores",
                "detection_metrics",
                "detector_summary",
                "detector_histories",
                "params:detector_training",
            ],
            outputs="detection_figures",
            name="draw_detection",
        ),
        node(
            draw_inputs,
            inputs=[
                "adversarials",
                "activations",
                "network_weights",
                "representatives",
                "detectors",
                "detector_summary",
                "params:evaluation",
            ],
            outputs="input_figures",
            name="draw_inputs",
        ),
        node(
            show_figures,
            inputs=["detection_figures", "input_figures", "benign_figures", "params:runtime"],
            outputs=["evaluation_pictures", *(f"{name}_figure" for name in SHOWN)],
            name="show_figures",
        ),
        node(
            write_evaluation_part,
            inputs=[
                "detection_metrics",
                "benign_changes",
                "class_false_alarms",
                "measured_leaderboard",
                "detector_summary",
                "attack_records",
                "source_splits",
                "network_weights",
                "evaluation_pictures",
                "parameters",
            ],
            outputs="evaluation_part",
            name="write_evaluation_part",
        ),
    ]
