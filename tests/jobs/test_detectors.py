"""Detectors: which are trained, on what, and how they are restored and chosen."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from adv_detect.algorithms.detectors import (
    StoredDetector,
    load_reference_detector,
    parse_reference_name,
    score_activations,
)
from adv_detect.algorithms.trajectories import order_classes, trajectories
from adv_detect.jobs.activations import natural_activations, successful_attacks
from adv_detect.jobs.detector_fitting import DetectorWork
from adv_detect.jobs.detectors import DetectorJob, attacks_of, best_detector, criteria_of, plan_jobs, restore
from adv_detect.names import REFERENCE
from adv_detect.params import DetectorParams

BOTH = ("targeted", "untargeted")


@pytest.fixture
def work(finished, blocks):
    """Makes what trains one detector, from the activations of the finished run or of another store."""

    def make(activations=None):
        chosen = activations or finished["activations"]
        return DetectorWork(chosen, finished["representatives"], blocks["detector_training"].fit, blocks["runtime"])

    return make


def published_job(path):
    params, criterion = parse_reference_name(path)
    return DetectorJob("paper", params, criterion, REFERENCE, ("bim", "cw"), 0, checkpoint=str(path))


def detector(finished, key):
    return restore(finished["detectors"], key, finished["representatives"])


def test_a_detector_reads_the_published_trajectories(finished):
    stored, representatives = detector(finished, "ranked/both/all/0"), finished["representatives"]
    found = natural_activations(finished["activations"], "validation")

    distances = trajectories(
        list(found.features.values()), representatives.centroids, "mahalanobis", whitening=representatives.whitening
    )

    expected = order_classes(distances, found.logits, order="ranked", top_k=2)
    torch.testing.assert_close(stored.detector.trajectories(found), expected, rtol=0, atol=1e-5)
    best = found.logits.argmax(dim=1)
    first = distances.gather(2, best[:, None, None].expand(-1, distances.shape[1], 1)).squeeze(2)
    assert torch.equal(stored.detector.trajectories(found)[:, :, 0], first)


def test_every_seed_is_trained_but_left_out_attacks_only_with_the_first(blocks):
    training = blocks["detector_training"]
    attacks = {"bim": BOTH, "cw": BOTH}
    jobs = plan_jobs(
        training.active, attacks, criteria=training.criteria, seeds=(4, 5), leave_one_out=training.leave_one_out
    )
    keys = [job.key for job in jobs]

    assert "cosine/both/all/4" in keys
    assert "cosine/both/all/5" in keys
    assert {key for key in keys if "/without-" in key and key.endswith("/5")} == set()
    assert "ranked/targeted/without-bim/4" in keys


def test_a_detector_that_learns_from_no_attack_is_planned_once_whatever_the_criteria():
    jobs = list(
        plan_jobs({"gap": DetectorParams(kind="margin")}, {"bim": BOTH}, criteria=(*BOTH, "both"), seeds=(0, 1))
    )

    assert [(job.key, job.criteria) for job in jobs] == [("gap/none/nothing/0", ())]


def test_criteria_of_training_attacks():
    attacks = {"bim": BOTH, "deep": ("targeted",)}

    assert attacks_of(attacks, "untargeted") == ("bim",)
    assert attacks_of(attacks, "both") == ("bim", "deep")
    assert [criteria_of(one) for one in ("targeted", "both", "none")] == [("targeted",), BOTH, ()]


@pytest.mark.parametrize(("key", "criteria"), [("cosine/targeted/all/0", ("targeted",)), ("cosine/both/all/0", BOTH)])
def test_the_validation_figure_is_the_mean_auc_over_attacks(finished, key, criteria):
    stored, store = detector(finished, key), finished["activations"]
    clean = score_activations(stored.detector, natural_activations(store, "validation"))
    aucs = []
    for attack in ("bim", "cw"):
        for criterion in criteria:
            part = successful_attacks(store, split="validation", attacks=(attack,), criteria=(criterion,))
            scores = torch.cat([clean, score_activations(stored.detector, part)])
            aucs.append(roc_auc_score([0] * len(clean) + [1] * len(part), scores))

    summary = finished["detector_summary"].set_index("detector")
    assert summary.loc[key, "validation_macro_auc"] == pytest.approx(sum(aucs) / len(aucs), abs=1e-6)


@pytest.mark.parametrize("key", ["cosine/untargeted/all/0", "ranked/both/all/0"])
def test_test_images_change_nothing_about_a_detector(finished, work, blocks, with_other_test_images, tmp_path, key):
    name, criterion, trained_on, seed = key.split("/")
    params = blocks["detector_training"].active[name]
    job = DetectorJob(name, params, criterion, trained_on, ("bim", "cw"), int(seed))

    again = work(with_other_test_images(tmp_path))(job)

    stored = finished["detectors"][key]
    assert again.metadata == stored.metadata
    for name, value in stored.tensors.items():
        assert torch.equal(again.tensors[name], value)


def test_the_best_is_chosen_by_validation_among_those_trained_on_all_attacks():
    summary = pd.DataFrame(
        [
            ("b/both/all/0", "all", 0.9, 0.99),
            ("a/both/all/0", "all", 0.9, 0.1),
            ("c/both/without-bim/0", "without-bim", 0.99, 0.99),
            ("d/both/reference/0", "reference", 0.99, 0.99),
            ("e/both/all/0", "all", 0.8, 1.0),
        ],
        columns=["detector", "trained_on", "validation_macro_auc_all", "validation_macro_auc"],
    )

    assert best_detector(summary) == "a/both/all/0"


def test_of_detectors_that_find_attacks_alike_the_calmest_is_the_best():
    summary = pd.DataFrame(
        [
            ("loud/both/all/0", "all", 0.9910, 0.97),
            ("calm/none/nothing/0", "nothing", 0.9895, 0.06),
            ("calmer/both/all/0", "all", 0.9880, 0.01),
            ("silent/both/without-bim/0", "without-bim", 0.9910, 0.0),
        ],
        columns=["detector", "trained_on", "validation_macro_auc_all", "validation_benign_fpr_05"],
    )

    assert best_detector(summary) == "calm/none/nothing/0"  # .0015 below the highest; the calmer one is .003 below
    assert best_detector(summary.assign(validation_benign_fpr_05=float("nan"))) == "loud/both/all/0"


def test_a_run_without_attacks_serves_the_calmest_detector():
    summary = pd.DataFrame(
        {
            "detector": ["a/none/clean/0", "b/none/clean/0"],
            "trained_on": "clean",
            "validation_benign_fpr_05": [0.2, 0.1],
        }
    ).assign(validation_macro_auc_all=float("nan"))

    assert best_detector(summary) == "b/none/clean/0"


def test_a_published_detector_is_taken_over_as_it_is(finished, work, published):
    content = work()(published_job(published))

    tensors = torch.load(published, weights_only=True)["detector"]
    held = {tuple(value.shape): value for value in content.tensors.values()}
    assert torch.equal(held[(20, 3)], tensors["lstm.weight_ih_l0"])
    assert torch.equal(held[(1, 5)], tensors["classifier.weight"])
    assert content.metadata["params"]["hidden"] == 5
    assert content.metadata["history"] == []
    stored = StoredDetector.restore("paper", content.metadata, content.tensors, finished["representatives"])
    naturals = natural_activations(finished["activations"], "validation")
    scores = score_activations(stored.detector, naturals).sort(descending=True).values
    assert stored.threshold(0.1) == pytest.approx(float(scores[1]), abs=1e-5)


def test_a_published_bidirectional_detector_is_taken_over_too(finished, work, published):
    held = torch.load(published, weights_only=True)["detector"]
    backward = {f"{name}_reverse": value + 0.5 for name, value in held.items() if name.startswith("lstm.")}
    head = {"classifier.weight": torch.linspace(-1, 1, 10)[None]}
    torch.save({"detector": held | backward | head}, published)
    content = work()(published_job(published))

    assert content.metadata["params"]["kind"] == "bilstm"
    restored = StoredDetector.restore("paper", content.metadata, content.tensors, finished["representatives"])
    rows = torch.rand(4, len(finished["representatives"].layers), 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(restored.detector.readout(rows), load_reference_detector(published)(rows))
