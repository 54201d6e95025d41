"""Trajectories, detectors, their thresholds and the choice of the one to serve."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from adv_detect.algorithms.detectors import (
    Activations,
    Detector,
    LearnsFrom,
    StoredDetector,
    load_reference_detector,
    score_activations,
)
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.trajectories import order_classes, trajectories
from adv_detect.errors import DataError
from adv_detect.jobs.activations import ActivationBlock, natural_activations, read_activations, successful_attacks
from adv_detect.jobs.detectors import best_detector, restore
from adv_detect.params import AttackParams, DetectorParams, DetectorTrainingParams
from adv_detect.pipelines.detector_training.nodes import compute_activations, fix_thresholds, train_detectors
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


def with_other_test_images(finished, folder):
    """A store that differs from the finished one in the activations of the test split alone."""
    store = ShardStore(str(folder))
    marks = finished["activations"].fingerprints()
    for key, content in finished["activations"]:
        tensors = dict(content.tensors)
        if "/test-" in key:
            tensors |= {name: torch.zeros_like(value) for name, value in tensors.items() if "features" in name}
        store.write(key, ShardContent(tensors, content.metadata), "changed" if "/test-" in key else marks[key])
    return store


class NoSuccessOfCw(ShardStore):
    """The finished trajectories, but Carlini-Wagner reached no target."""

    def read(self, key, names=None):
        content = super().read(key, names)
        tensors = dict(content.tensors)
        if key.startswith("cw/targeted/"):
            tensors["success"] = torch.zeros_like(tensors["success"])
        return ShardContent(tensors, content.metadata)


def test_what_is_left_without_an_attack_must_have_succeeded(finished, detector_plan, caplog):
    keys = detector_plan(NoSuccessOfCw(finished["activations"].root)).keys

    assert set(detector_plan().keys) - set(keys) == {"ranked/targeted/without-bim/0"}
    (message,) = (record.getMessage() for record in caplog.records)
    assert message == "detectors: ranked/targeted/without-bim/0 is left out, for its attacks cw had no success"


@pytest.mark.parametrize("key", ["natural/test-0000", "bim/targeted/train-0001", "cw/untargeted/validation-0000"])
def test_activations_equal_a_direct_computation(finished, key):
    network = finished["network_weights"]
    images, stored = finished["adversarials"].read(key), finished["activations"].read(key)

    logits, features = extract_features(network, images.tensors["images"], network.spec.layers)

    found = read_activations(stored)
    torch.testing.assert_close(found.logits, logits, rtol=1e-4, atol=1e-4)
    assert tuple(found.features) == network.spec.layers
    for name, value in zip(network.spec.layers, features, strict=True):
        torch.testing.assert_close(found.features[name], value, rtol=1e-4, atol=1e-4)
    assert stored.metadata["source_ids"] == images.metadata["source_ids"]
    assert torch.equal(stored.tensors["success"], images.tensors["success"])
    assert torch.equal(stored.tensors["survives"], images.tensors["success"])


def test_activations_follow_their_images(finished, blocks):
    names = ("adversarials", "network_weights", "representatives", "params:detector_training")
    plan = compute_activations(*(finished[name] for name in names), blocks["runtime"])

    assert plan.keys == finished["adversarials"].keys()
    assert plan.fingerprints == finished["activations"].fingerprints()


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


def test_there_is_a_detector_per_configuration_criterion_and_training_set(finished):
    plain = {f"{name}/{one}/all/0" for name in ("cosine", "ranked") for one in (*BOTH, "both")}
    left_out = {f"ranked/{one}/without-{attack}/0" for one in BOTH for attack in ("bim", "cw")}

    assert set(finished["detectors"].keys()) == plain | left_out
    assert finished["detectors"].metadata("ranked/targeted/without-bim/0")["attacks"] == ["cw"]
    assert finished["detectors"].metadata("ranked/both/all/0")["attacks"] == ["bim", "cw"]


def test_every_seed_is_trained_but_left_out_attacks_only_with_the_first(detector_plan, blocks):
    keys = detector_plan(detector_training=blocks["detector_training"].model_copy(update={"seeds": (4, 5)})).keys

    assert "cosine/both/all/4" in keys
    assert "cosine/both/all/5" in keys
    assert {key for key in keys if "/without-" in key and key.endswith("/5")} == set()
    assert "ranked/targeted/without-bim/4" in keys


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
    table = fix_thresholds(finished["detectors"], rates)

    stored = detector(finished, "cosine/both/all/0")
    row = table[(table["detector"] == "cosine/both/all/0") & (table["rate"] == "12_5")].iloc[0]
    assert float((stored.clean_scores > row["threshold"]).float().mean()) <= 0.125


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


def test_failed_attacks_are_not_learned_from(finished):
    kept = successful_attacks(finished["activations"], split="train", attacks=("bim", "cw"), criteria=BOTH)
    records = finished["attack_records"].query("split == 'train' and attack != 'natural'")

    assert len(kept) == int(records["success"].sum()) < len(records)
    counts = records[records["success"]].groupby(["attack", "criterion"]).size()
    assert {group: kept.groups.count(group) for group in set(kept.groups)} == {
        f"{attack}/{criterion}": count for (attack, criterion), count in counts.items()
    }


def test_no_shards_of_a_split_is_an_error(tmp_path):
    with pytest.raises(DataError, match="run the pipeline detector_training"):
        natural_activations(ShardStore(str(tmp_path)), "train")


@pytest.mark.parametrize("key", ["cosine/untargeted/all/0", "ranked/both/all/0"])
def test_test_images_change_nothing_about_a_detector(finished, detector_plan, tmp_path, key):
    plan = detector_plan()
    work = replace(plan.work, activations=with_other_test_images(finished, tmp_path))

    again = work(next(spec.arguments for spec in plan.shards if spec.key == key))

    stored = finished["detectors"].read(key)
    assert again.metadata == stored.metadata
    for name, value in stored.tensors.items():
        assert torch.equal(again.tensors[name], value)


def test_an_attack_that_is_only_tested_on_retrains_nothing(finished, detector_plan, blocks, tmp_path):
    attacks = blocks["adversarial_generation"]
    further = AttackParams(attack="bim", norm="l2", epsilon=1.0, train=False, splits=("test",))
    store = with_other_test_images(finished, tmp_path)
    store.write("further/targeted/test-0000", finished["activations"].read("bim/targeted/test-0000"), "new")

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

    assert summary["detector"].tolist() == list(finished["detectors"].keys())
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


@pytest.fixture
def published(tmp_path):
    """A file in the published form: an LSTM over three classes with five hidden units."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "lstm.weight_ih_l0": (20, 3),
        "lstm.weight_hh_l0": (20, 5),
        "lstm.bias_ih_l0": (20,),
        "lstm.bias_hh_l0": (20,),
        "classifier.weight": (1, 5),
        "classifier.bias": (1,),
    }
    name = "best_model_with_arch_lstm_method_m_dist_cosine_criterion_t_lr_0.0003_bs_32_ba_4_weightd_0.pth"
    path = tmp_path / name
    torch.save({"detector": {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}}, path)
    return path


def test_a_published_detector_is_taken_over_as_it_is(finished, detector_plan, blocks, published):
    training = blocks["detector_training"].model_copy(update={"reference_checkpoints": {"paper": str(published)}})
    plan = detector_plan(detector_training=training)

    content = plan.work(next(spec.arguments for spec in plan.shards if spec.key == "paper/targeted/reference/0"))

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


def test_a_published_bidirectional_detector_is_taken_over_too(finished, detector_plan, blocks, published):
    held = torch.load(published, weights_only=True)["detector"]
    backward = {f"{name}_reverse": value + 0.5 for name, value in held.items() if name.startswith("lstm.")}
    head = {"classifier.weight": torch.linspace(-1, 1, 10)[None]}
    torch.save({"detector": held | backward | head}, published)
    training = blocks["detector_training"].model_copy(update={"reference_checkpoints": {"paper": str(published)}})
    plan = detector_plan(detector_training=training)

    content = plan.work(next(spec.arguments for spec in plan.shards if spec.key == "paper/targeted/reference/0"))

    assert content.metadata["params"]["kind"] == "bilstm"
    restored = StoredDetector.restore("paper", content.metadata, content.tensors, finished["representatives"])
    rows = torch.rand(4, len(finished["representatives"].layers), 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(restored.detector.readout(rows), load_reference_detector(published)(rows))


def test_another_file_of_the_same_name_makes_a_published_detector_stale(detector_plan, blocks, published):
    training = blocks["detector_training"].model_copy(update={"reference_checkpoints": {"paper": str(published)}})
    before = detector_plan(detector_training=training).fingerprints["paper/targeted/reference/0"]
    held = torch.load(published, weights_only=True)["detector"]
    torch.save({"detector": {name: value + 1 for name, value in held.items()}}, published)

    assert detector_plan(detector_training=training).fingerprints["paper/targeted/reference/0"] != before


def test_images_without_finite_features_are_left_out_and_said(finished, caplog):
    names = ("adversarials", "network_weights", "representatives", "params:detector_training", "params:runtime")
    plan = compute_activations(*(finished[name] for name in names))
    key = "natural/test-0000"
    content = finished["adversarials"].read(key)
    content.tensors["images"][1, 0, 0, 0] = float("nan")

    class Spoilt:
        def read(self, _):
            return content

    made = replace(plan.work, adversarials=Spoilt())(ActivationBlock(shard=key))
    whole = finished["activations"].read(key)
    kept = torch.arange(len(whole.tensors["label"])) != 1
    assert made.metadata["source_ids"] == [name for row, name in enumerate(whole.metadata["source_ids"]) if row != 1]
    assert torch.equal(made.tensors["source_index"], whole.tensors["source_index"][kept])
    torch.testing.assert_close(made.tensors["logits"], whole.tensors["logits"][kept])
    assert f"1 of {len(kept)} images of {key} (float) left out" in caplog.text
