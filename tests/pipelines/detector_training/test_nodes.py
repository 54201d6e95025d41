"""Trajectories, detectors, their thresholds and the choice of the one to serve."""

from __future__ import annotations

import pytest
import torch

from adv_detect.algorithms.detectors import (
    Activations,
    Detector,
    LearnsFrom,
    score_activations,
)
from adv_detect.jobs.activations import natural_activations
from adv_detect.jobs.detectors import best_detector, restore
from adv_detect.params import AttackParams, DetectorParams, DetectorTrainingParams
from adv_detect.pipelines.detector_training.nodes import compute_activations, train_detectors
from adv_detect.pipelines.detector_training.tables import fix_thresholds
from adv_detect.sharding import ShardContent, ShardStore, execute_plan

COSINE = DetectorParams(kind="lstm", representative="medoid", distance="cosine", hidden=8)
BOTH = ("targeted", "untargeted")


class LeastLikely(Detector):
    """A detector as a user would write it: distance of the logits from those of clean images."""

    learns_from = LearnsFrom.CLEAN

    def __init__(self, representatives, power: float = 2.0) -> None:
        super().__init__()
        self.power = power
        self.register_buffer("centre", torch.zeros(len(representatives.class_names)))

    def fit(self, clean, attacked, *, seed):
        assert attacked is None
        self.centre.copy_(clean.logits.mean(dim=0))
        return []

    def forward(self, activations):
        return (activations.logits - self.centre).abs().pow(self.power).sum(dim=1)


OWN = DetectorParams(kind=f"{__name__}.LeastLikely", arguments={"power": 1.0})


@pytest.fixture
def detector_plan(finished, blocks):
    def make(store=None, **changes):
        names = ("detector_training", "adversarial_generation", "runtime")
        given = {name: blocks[name] for name in names} | changes
        return train_detectors(store or finished["activations"], finished["representatives"], **given)

    return make


def detector(finished, key):
    return restore(finished["detectors"], key, finished["representatives"])


class NoSuccessOfCw(ShardStore):
    """The finished trajectories, but Carlini-Wagner reached no target."""

    def __getitem__(self, key):
        content = super().__getitem__(key)
        tensors = dict(content.tensors)
        if key.startswith("cw/targeted/"):
            tensors["success"] = torch.zeros_like(tensors["success"])
        return ShardContent(tensors, content.metadata)


def test_what_is_left_without_an_attack_must_have_succeeded(finished, detector_plan, caplog):
    keys = detector_plan(NoSuccessOfCw(finished["activations"].root)).keys

    assert set(detector_plan().keys) - set(keys) == {"ranked/targeted/without-bim/0"}
    (message,) = (record.getMessage() for record in caplog.records)
    assert message == "detectors: ranked/targeted/without-bim/0 is left out, for its attacks cw had no success"


def test_activations_follow_their_images(finished, blocks):
    names = ("adversarials", "network_weights", "representatives", "twin", "params:detector_training")
    plan = compute_activations(*(finished[name] for name in names), blocks["runtime"], blocks["evaluation"])

    assert plan.keys == tuple(finished["adversarials"])
    assert plan.fingerprints == finished["activations"].fingerprints()


def test_there_is_a_detector_per_configuration_criterion_and_training_set(finished):
    plain = {f"{name}/{one}/all/0" for name in ("cosine", "ranked") for one in (*BOTH, "both")}
    left_out = {f"ranked/{one}/without-{attack}/0" for one in BOTH for attack in ("bim", "cw")}

    assert set(finished["detectors"]) == plain | left_out
    assert finished["detectors"].metadata("ranked/targeted/without-bim/0")["attacks"] == ["cw"]
    assert finished["detectors"].metadata("ranked/both/all/0")["attacks"] == ["bim", "cw"]


@pytest.mark.parametrize("key", ["cosine/targeted/all/0", "cosine/both/all/0"])
def test_thresholds_come_from_clean_validation_images_only(finished, key):
    stored, table = detector(finished, key), finished["thresholds"]
    naturals = natural_activations(finished["activations"], "validation")
    scores = sorted(score_activations(stored.detector, naturals).tolist(), reverse=True)

    assert torch.equal(stored.clean_scores, torch.tensor(scores[::-1]))
    mine = table[table["detector"] == key]
    assert mine["rate"].tolist() == ["01", "03", "05", "10"]
    for row in mine.to_dict("records"):
        assert row["threshold"] == pytest.approx(scores[int(row["fpr"] * len(scores))], abs=1e-5)
        assert row["n"] == len(scores) == 18


def test_any_rate_has_a_threshold_without_training(finished, blocks):
    rates = blocks["evaluation"].model_copy(update={"fprs": (0.01, 0.05, 0.125)})
    table = fix_thresholds(finished["detectors"], finished["control_detectors"], rates)

    stored = detector(finished, "cosine/both/all/0")
    row = table[(table["detector"] == "cosine/both/all/0") & (table["rate"] == "12_5")].iloc[0]
    assert float((stored.clean_scores > row["threshold"]).float().mean()) <= 0.125


def test_an_attack_that_is_only_tested_on_retrains_nothing(
    finished, detector_plan, blocks, with_other_test_images, tmp_path
):
    attacks = blocks["adversarial_generation"]
    further = AttackParams(attack="bim", norm="l2", epsilon=1.0, train=False, splits=("test",))
    store = with_other_test_images(tmp_path)
    store.write("further/targeted/test-0000", finished["activations"]["bim/targeted/test-0000"], "new")

    changed = attacks.model_copy(update={"attacks": attacks.attacks | {"further": further}})
    assert detector_plan(store, adversarial_generation=changed).fingerprints == finished["detectors"].fingerprints()


def test_one_more_detector_trains_one_detector(finished, detector_plan, blocks):
    training = blocks["detector_training"]
    changed = training.model_copy(update={"configurations": training.configurations | {"own": OWN}})

    fingerprints = detector_plan(detector_training=changed).fingerprints

    before = finished["detectors"].fingerprints()
    assert set(fingerprints) - set(before) == {"own/none/clean/0"}
    assert {key: fingerprints[key] for key in before} == before


def test_a_detector_by_dotted_path_is_trained_and_restored(finished, detector_plan, blocks, tmp_path):
    training = DetectorTrainingParams(configurations={"own": OWN})
    plan, store = detector_plan(detector_training=training), ShardStore(str(tmp_path))

    execute_plan(plan, store)

    stored = restore(store, "own/none/clean/0", finished["representatives"])
    clean = natural_activations(finished["activations"], "train")
    assert isinstance(stored.detector, Detector)
    torch.testing.assert_close(stored.detector.centre, clean.logits.mean(dim=0))
    one = Activations(logits=torch.eye(3), features={})
    torch.testing.assert_close(stored.detector(one), (torch.eye(3) - stored.detector.centre).abs().sum(dim=1))


def test_the_champion_is_the_best_detector_with_its_network(finished):
    bundle, summary = finished["champion_model"], finished["detector_summary"]
    best = best_detector(summary)
    expected, fixed = detector(finished, best), finished["thresholds"]
    fixed = fixed[fixed["detector"] == best]

    assert bundle.stored.key == best
    assert bundle.thresholds == dict(zip(fixed["fpr"], fixed["threshold"], strict=True))
    assert bundle.threshold(0.1) == expected.threshold(0.1)
    for name, value in bundle.stored.detector.state_dict().items():
        assert torch.equal(value, expected.detector.state_dict()[name])


def test_the_summary_and_the_histories_repeat_what_is_stored(finished):
    summary, histories = finished["detector_summary"], finished["detector_histories"]

    assert summary["detector"].tolist() == list(finished["detectors"])
    for row in summary.to_dict("records"):
        facts = finished["detectors"].metadata(row["detector"])
        assert (row["distance"], row["trained_criterion"]) == (facts["params"]["distance"], facts["trained_criterion"])
        mine = histories[histories["detector"] == row["detector"]]
        assert mine["epoch"].tolist() == list(range(1, row["epochs"] + 1))
        assert mine["validation_macro_auc"].tolist() == [one["validation_macro_auc"] for one in facts["history"]]


@pytest.mark.parametrize(
    "changes",
    [
        {"fit": {"epochs": 5}},
        {"configurations": {"cosine": COSINE.model_copy(update={"hidden": 9})}},
    ],
)
def test_a_changed_training_makes_detectors_stale(detector_plan, blocks, changes):
    changed = blocks["detector_training"].model_dump() | {"leave_one_out": ()} | changes
    before = detector_plan().fingerprints
    after = detector_plan(detector_training=DetectorTrainingParams.model_validate(changed)).fingerprints

    assert before["cosine/both/all/0"] != after["cosine/both/all/0"]


def test_another_file_of_the_same_name_makes_a_published_detector_stale(detector_plan, blocks, published):
    training = blocks["detector_training"].model_copy(update={"reference_checkpoints": {"paper": str(published)}})
    before = detector_plan(detector_training=training).fingerprints["paper/targeted/reference/0"]
    held = torch.load(published, weights_only=True)["detector"]
    torch.save({"detector": {name: value + 1 for name, value in held.items()}}, published)

    assert detector_plan(detector_training=training).fingerprints["paper/targeted/reference/0"] != before
