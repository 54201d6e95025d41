"""Controls as stored detectors."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from adv_detect.algorithms.detectors import score_activations, untrained_detector
from adv_detect.jobs.activations import natural_activations
from adv_detect.jobs.controls import control_plan
from adv_detect.jobs.detectors import best_detector, restore
from adv_detect.names import CONTROL_KEYS
from adv_detect.params import DetectorTrainingParams
from adv_detect.pipelines.detector_training.nodes import make_controls, train_detectors
from adv_detect.sharding import ShardStore, execute_plan


def plan_of(finished, blocks, detectors=None, best=None):
    found = finished["detectors"] if detectors is None else detectors
    chosen = best or best_detector(finished["detector_summary"])
    return control_plan(found, chosen, finished["activations"], finished["representatives"], blocks["runtime"])


def test_controls_are_stored_with_clean_scores_and_thresholds_like_trained_detectors(finished):
    store, thresholds = finished["control_detectors"], finished["thresholds"]
    clean = natural_activations(finished["activations"], "validation")

    assert set(store) == set(CONTROL_KEYS)
    for key in CONTROL_KEYS:
        control = restore(store, key, finished["representatives"])
        scores = score_activations(control.detector, clean).sort().values
        torch.testing.assert_close(control.clean_scores, scores)
        mine = thresholds[thresholds["detector"] == key]
        assert mine["threshold"].tolist() == [control.threshold(fpr) for fpr in mine["fpr"]]
        assert mine["n"].tolist() == [len(clean)] * 4


def test_the_margin_control_is_minus_the_gap_of_the_two_largest_logits(finished):
    control = restore(finished["control_detectors"], "margin", finished["representatives"])
    clean = natural_activations(finished["activations"], "validation")

    largest = clean.logits.sort(dim=1, descending=True).values
    torch.testing.assert_close(score_activations(control.detector, clean), largest[:, 1] - largest[:, 0])
    assert control.facts["seed"] == -1


@pytest.mark.parametrize("draw", [0, 9])
def test_an_untrained_control_has_the_form_of_the_best_and_the_weights_of_its_draw(finished, draw):
    best = restore(finished["detectors"], best_detector(finished["detector_summary"]), finished["representatives"])
    control = restore(finished["control_detectors"], f"untrained/{draw}", finished["representatives"])

    expected = untrained_detector(best.detector, draw).state_dict()

    assert control.params == best.params
    assert control.facts["seed"] == draw
    assert {name: value.tolist() for name, value in control.detector.state_dict().items()} == {
        name: value.tolist() for name, value in expected.items()
    }


def test_controls_are_kept_until_the_detector_that_they_resemble_changes(finished, blocks):
    before = finished["control_detectors"].fingerprints()

    assert plan_of(finished, blocks).fingerprints == before
    best = best_detector(finished["detector_summary"])
    other = next(key for key in finished["detectors"] if key != best)
    after = plan_of(finished, blocks, best=other).fingerprints
    assert {key for key in before if after[key] == before[key]} == {"margin"}


@pytest.mark.parametrize(("further", "expected"), [({}, {"margin"}), ({"read": {"kind": "mlp"}}, set(CONTROL_KEYS))])
def test_where_the_best_reads_no_trajectories_the_first_that_does_is_resembled(
    finished, blocks, tmp_path, further, expected
):
    training = DetectorTrainingParams.model_validate(
        {"configurations": {"gap": {"kind": "margin"}} | further, "criteria": ["both"], "fit": {"epochs": 1}}
    )
    attacks, store = blocks["adversarial_generation"], ShardStore(str(tmp_path))
    execute_plan(
        train_detectors(finished["activations"], finished["representatives"], training, attacks, blocks["runtime"]),
        store,
    )

    plan = plan_of(finished, blocks, store, "gap/none/nothing/0")

    assert set(plan.keys) == expected
    likes = {spec.arguments.key: spec.arguments.like for spec in plan.shards}
    assert likes["margin"] is None
    assert set(likes.values()) <= {None, "read/both/all/0"}


def test_a_better_detector_that_reads_no_trajectories_leaves_the_untrained_ones_their_form(finished, blocks):
    summary = finished["detector_summary"]
    second = summary.iloc[[0]].assign(detector="a/none/nothing/0", kind="twin", validation_macro_auc_all=1.0)
    stores = (finished["activations"], finished["representatives"], blocks["runtime"])

    alone = make_controls(finished["detectors"], summary, *stores)
    beside = make_controls(finished["detectors"], pd.concat([summary, second]), *stores)

    assert beside.fingerprints == alone.fingerprints
