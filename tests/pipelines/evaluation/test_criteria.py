"""Detectors of one criterion alone are drawn and reported."""

from __future__ import annotations

import pandas as pd
import pytest

from adv_detect.measures.detector_keys import CONTROL_KEYS
from adv_detect.params import RuntimeParams
from adv_detect.pipelines.evaluation.benign import draw_benign_changes
from adv_detect.pipelines.evaluation.figures import (
    SHOWN,
    draw_detection,
    draw_inputs,
    show_figures,
    write_evaluation_part,
)
from adv_detect.reporting import Figure

SUBSETS = [{"targeted"}, {"untargeted"}, {"both"}]


@pytest.mark.parametrize("trained", SUBSETS, ids=lambda some: "-".join(sorted(some)))
def test_detectors_of_one_criterion_reach_the_report(finished, blocks, trained):
    summary = finished["detector_summary"]
    summary = summary[summary["trained_criterion"].isin(trained)]
    kept = {*summary["detector"], *CONTROL_KEYS}
    metrics = finished["detection_metrics"]
    metrics = metrics[metrics["detector"].isin(kept)]
    training, evaluation = blocks["detector_training"], blocks["evaluation"]

    drawn = draw_detection(finished["scores"], metrics, summary, finished["detector_histories"], training)
    shown = ("adversarials", "activations", "network_weights", "representatives", "detectors")
    inputs = draw_inputs(*(finished[name] for name in shown), summary, evaluation)
    stored = (finished[name] for name in ("attack_records", "source_splits", "network_weights"))
    pictures, *shown_alone = show_figures(
        drawn, inputs, draw_benign_changes(finished["benign_changes"]), RuntimeParams(progress=False)
    )
    compared = pd.DataFrame({"configuration": ["cosine"]})
    clean = (finished["benign_changes"], finished["class_false_alarms"])
    part = write_evaluation_part(metrics, *clean, compared, summary, *stored, pictures, dict(blocks))

    tested = {"targeted", "untargeted"} if "both" in trained else trained
    for name in ("auc_overview", "roc", "score_histograms", "training_curves"):
        assert {key.split("/")[1] for key in drawn if key.startswith(f"{name}/")} == tested
    assert len(shown_alone) == len(SHOWN)
    pd.testing.assert_frame_equal(part.tables["leaderboard"], compared)
    blocks_shown = [block for section in part.report.sections for block in section.blocks]
    assert {block.figure for block in blocks_shown if isinstance(block, Figure)} == set(pictures.values())


def test_an_attack_without_a_success_leaves_its_criterion_out_of_the_figures(finished, blocks):
    metrics = finished["detection_metrics"].copy()
    metrics.loc[metrics["criterion"] == "targeted", "auc"] = float("nan")

    drawn = draw_detection(
        finished["scores"], metrics, finished["detector_summary"], finished["detector_histories"],
        blocks["detector_training"],
    )  # fmt: skip

    assert {key.split("/")[1] for key in drawn} == {"untargeted"}
