"""Scores, controls and metrics, measured again from what lies on disk."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from adv_detect.algorithms.attacks.perturbations import perturbation_norms
from adv_detect.algorithms.detectors import (
    TrajectoryDetector,
    random_readout,
    score_activations,
    score_trajectories,
)
from adv_detect.algorithms.features import extract_features
from adv_detect.jobs.activation_plans import ActivationBlock, ActivationWork
from adv_detect.jobs.activations import read_activations
from adv_detect.jobs.detectors import restore
from adv_detect.measures.detector_keys import CONTROL_KEYS
from adv_detect.measures.score_parts import ScoreParts
from adv_detect.params import DetectorParams
from adv_detect.pipelines.evaluation.nodes import score_images
from adv_detect.sharding import ShardStore, execute_plan

KEYS = ["cosine/targeted/all/0", "ranked/both/all/0", "ranked/untargeted/without-cw/0"]


def scored(finished, detector, **wanted):
    scores = finished.scores
    mask = scores["detector"] == detector
    for name, value in wanted.items():
        mask &= scores[name] == value
    return scores[mask]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("shard", ["natural/validation-0000", "bim/targeted/test-0001", "cw/untargeted/test-0000"])
def test_scores_are_what_the_stored_detector_says(finished, key, shard):
    content = finished["activations"][shard]
    stored = restore(finished["detectors"], key, finished["representatives"])
    expected = score_activations(stored.detector, read_activations(content)).numpy()

    parts = shard.split("/")
    found = scored(finished, key, variant="float", attack=parts[0], criterion=parts[1] if len(parts) == 3 else "none")
    found = found.set_index("source_id").loc[content.metadata["source_ids"]]

    np.testing.assert_allclose(found["score"], expected, rtol=1e-5, atol=1e-6)
    for fpr in (1, 3, 5, 10):
        threshold = stored.threshold(fpr / 100)
        assert found[f"verdict_fpr_{fpr:02d}"].tolist() == (found["score"] > threshold).tolist()
    clean = stored.clean_scores.numpy()
    at_least = [(1 + (clean >= score).sum()) / (len(clean) + 1) for score in found["score"]]
    np.testing.assert_allclose(found["p_value"], at_least, rtol=1e-6)


def test_every_detector_and_control_scores_the_same_images(finished):
    scores = finished.scores
    sizes = scores.groupby("detector", observed=True).size()

    assert set(sizes.index) == {*finished["detectors"], *CONTROL_KEYS}
    assert sizes.nunique() == 1
    assert set(scores["split"]) == {"test", "validation"}
    assert set(scores[scores["split"] == "validation"]["attack"]) == {"natural"}


def test_naturals_of_the_test_split_include_misclassified_ones(finished):
    naturals = scored(finished, "margin", attack="natural", split="test")
    splits = finished["source_splits"].query("split == 'test'")

    assert sorted(naturals["source_id"]) == sorted(splits["source_id"])
    assert 0 < (~naturals["correct"]).sum() < len(naturals)
    assert (naturals["correct"] == (naturals["label"] == naturals["predicted"])).all()
    assert not naturals["adversarial"].any()


def test_the_margin_control_scores_minus_the_gap_with_its_threshold_from_validation(finished):
    rows = scored(finished, "margin")
    clean = scored(finished, "margin", attack="natural", split="validation")["score"]

    np.testing.assert_array_equal(rows["score"], -rows["margin"])
    threshold = np.sort(clean)[::-1][int(0.1 * len(clean))]
    assert rows["verdict_fpr_10"].tolist() == (rows["score"] > threshold).tolist()
    assert scored(finished, "margin", attack="natural", split="validation")["verdict_fpr_10"].mean() <= 0.1


def test_rounded_images_are_scored_apart_and_say_whether_the_attack_survives(finished):
    key = "bim/untargeted/test-0000"
    images = finished["adversarials"][key]
    rounded = torch.round(images.tensors["images"] * 255) / 255
    predicted = finished["network_weights"](rounded).argmax(dim=1)
    survives = images.tensors["success"] & (predicted != images.tensors["label"])

    found = scored(finished, "margin", attack="bim", criterion="untargeted", variant="8bit").set_index("source_id")

    found = found.loc[images.metadata["source_ids"]]
    assert found["success"].tolist() == survives.tolist()
    assert found["predicted"].tolist() == predicted.tolist()
    assert found["adversarial"].all()


def test_rounded_activations_equal_a_direct_computation(finished):
    network = finished["network_weights"]
    images = finished["adversarials"]["cw/targeted/test-0000"].tensors["images"]
    _, features = extract_features(network, torch.round(images * 255) / 255, network.spec.layers)

    stored = read_activations(finished["control_activations"]["8bit/cw/targeted/test-0000"])

    for found, expected in zip(stored.features.values(), features, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("key", "norm"), [("bim/targeted/test-0000", "linf"), ("cw/targeted/test-0000", "l2")])
def test_the_noise_is_as_large_as_the_attack_and_counts_as_natural(finished, key, norm):
    attacked = finished["adversarials"][key]
    natural = finished["adversarials"][f"natural/{key.rsplit('/', 1)[1]}"]
    row_of = {index: row for row, index in enumerate(natural.tensors["source_index"].tolist())}
    clean = natural.tensors["images"][[row_of[index] for index in attacked.tensors["source_index"].tolist()]]
    work = ActivationWork(finished["adversarials"], finished["network_weights"], {}, None)

    noisy = work._vary(ActivationBlock(shard=key, variant="noise", norm=norm), attacked)

    wanted, found = attacked.tensors[norm], perturbation_norms(clean, noisy)[norm]
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=1e-4)
    rows = scored(finished, "margin", attack=key.split("/")[0], variant="noise")
    assert len(rows) > 0
    assert not rows["adversarial"].any()


def test_controls_are_made_of_attacked_test_images_only(finished):
    stored = finished["adversarials"]
    attacked = [key for key in stored if "/test-" in key and not key.startswith("natural")]

    assert set(finished["control_activations"]) == {f"{kind}/{key}" for kind in ("8bit", "noise") for key in attacked}


@pytest.mark.parametrize("key", [*KEYS, "margin"])
@pytest.mark.parametrize(("attack", "criterion"), [("bim", "targeted"), ("bim", "untargeted"), ("cw", "untargeted")])
def test_the_auc_of_the_table_is_that_of_the_scores(finished, key, attack, criterion):
    test = scored(finished, key, split="test", variant="float")
    natural = test[test["attack"] == "natural"]
    attacked = test[(test["attack"] == attack) & (test["criterion"] == criterion) & test["success"]]
    metrics = finished["detection_metrics"]

    row = metrics[
        (metrics["detector"] == key)
        & (metrics["attack"] == attack)
        & (metrics["criterion"] == criterion)
        & (metrics["form"] == "early")
        & (metrics["variant"] == "float")
    ]

    assert len(row) == 1
    one = row.iloc[0]
    labels = [False] * len(natural) + [True] * len(attacked)
    assert one["auc"] == pytest.approx(roc_auc_score(labels, [*natural["score"], *attacked["score"]]), abs=1e-6)
    assert (one["n_natural"], one["n_adversarial"]) == (len(natural), len(attacked))
    assert one["tpr_at_fpr_10"] == pytest.approx(attacked["verdict_fpr_10"].mean())
    assert one["fpr_10"] == pytest.approx(natural["verdict_fpr_10"].mean())
    assert one["auc_low"] <= one["auc"] <= one["auc_high"]


def test_detectors_meet_the_other_criterion_confident_forms_and_left_out_attacks(finished):
    metrics = finished["detection_metrics"].query("variant == 'float'")
    met = set(zip(metrics["detector"], metrics["attack"], metrics["criterion"], metrics["form"], strict=True))

    assert ("cosine/targeted/all/0", "bim", "untargeted", "early") in met
    assert ("cosine/untargeted/all/0", "cw", "targeted", "early") in met
    assert ("cosine/targeted/all/0", "bim-confident", "targeted", "confident") in met
    assert ("ranked/targeted/without-bim/0", "bim", "targeted", "early") in met
    assert ("untrained/9", "bim", "targeted", "early") in met
    assert {"macro", "worst"} <= set(metrics["attack"])
    assert set(finished["detection_metrics"]["variant"]) == {"float", "8bit", "noise"}


def test_an_untrained_detector_is_at_one_half_on_average(finished):
    params = DetectorParams(kind="lstm", representative="medoid", distance="cosine", hidden=8)
    reader = TrajectoryDetector(finished["representatives"], params)
    store = finished["activations"]
    natural, attacked = (
        torch.cat([reader.trajectories(read_activations(content)) for content in part.values()])
        for part in (store.select(natural=True), store.select(attack="bim", criterion="untargeted"))
    )
    both = torch.cat([natural, attacked])
    labels = [False] * len(natural) + [True] * len(attacked)
    aucs = []

    for seed in range(60):
        detector = random_readout(params, layers=both.shape[1], classes=both.shape[2], seed=seed)
        detector.set_standardisation(natural.mean(dim=0), natural.std(dim=0))
        aucs.append(roc_auc_score(labels, score_trajectories(detector.eval(), both)))

    assert np.mean(aucs) == pytest.approx(0.5, abs=0.12)
    assert min(aucs) < 0.5 < max(aucs)


SCORED = (
    "activations",
    "control_activations",
    "detectors",
    "control_detectors",
    "thresholds",
    "representatives",
)


def test_scoring_twice_gives_the_same_table(finished, blocks, tmp_path):
    parameters = (blocks[name] for name in ("adversarial_generation", "evaluation", "runtime"))
    plan, again = score_images(*(finished[name] for name in SCORED), *parameters), ShardStore(str(tmp_path))
    execute_plan(plan, again)

    pd.testing.assert_frame_equal(ScoreParts(again).table(), finished.scores)
    assert again.digest == finished["scores"].digest


def test_a_changed_threshold_makes_scores_anew(finished, blocks):
    parameters = (blocks[name] for name in ("adversarial_generation", "evaluation", "runtime"))
    parts = {name: finished[name] for name in SCORED}
    parts["thresholds"] = parts["thresholds"].assign(threshold=parts["thresholds"]["threshold"] + 1)
    plan = score_images(*parts.values(), *parameters)

    assert not set(plan.fingerprints.values()) & set(finished["scores"].fingerprints().values())
