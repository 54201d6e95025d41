"""Trajectories, detectors, their thresholds and the choice of the one to serve."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from adv_detect.algorithms.detectors import load_reference_detector, score_trajectories
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.trajectories import order_classes, trajectories
from adv_detect.errors import DataError
from adv_detect.params import DetectorParams, DetectorTrainingParams
from adv_detect.pipelines.detector_training.nodes import best_detector, compute_trajectories, train_detectors
from adv_detect.pipelines.detector_training.rows import read_rows, stack_rows
from adv_detect.pipelines.detector_training.work import TrajectoryBlock
from adv_detect.serving.bundle import restore_detector
from adv_detect.sharding import ShardContent, ShardStore

COSINE = DetectorParams(kind="lstm", representative="medoid", distance="cosine", hidden=8)
BOTH = ("targeted", "untargeted")


@pytest.fixture
def detector_plan(finished, blocks):
    def make(store=None, **changes):
        names = ("detector_training", "adversarial_generation", "evaluation", "runtime")
        return train_detectors(store or finished["trajectories"], **({name: blocks[name] for name in names} | changes))

    return make


def detector(finished, key):
    content = finished["detectors"].read(key)
    return restore_detector(content.metadata, content.tensors), content.metadata


def rows(finished, split, criteria, *, attacks=("bim", "cw"), params=COSINE):
    return stack_rows(
        part.successes()
        for part in read_rows(finished["trajectories"], params, split=split, attacks=attacks, criteria=criteria)
    )


def with_other_test_images(finished, folder):
    """A store that differs from the finished one in the trajectories of the test split alone."""
    store = ShardStore(str(folder))
    for key, content in finished["trajectories"]:
        tensors = dict(content.tensors)
        if "/test-" in key:
            tensors["medoid.cosine"] = torch.zeros_like(tensors["medoid.cosine"])
            tensors["centroid.mahalanobis"] = torch.full_like(tensors["centroid.mahalanobis"], 99.0)
        store.write(key, ShardContent(tensors, content.metadata), "changed")
    return store


@pytest.mark.parametrize("key", ["natural/test-0000", "bim/targeted/train-0001", "cw/untargeted/validation-0000"])
def test_trajectories_equal_a_direct_computation(finished, key):
    network, representatives = finished["network_weights"], finished["representatives"]
    images, stored = finished["adversarials"].read(key), finished["trajectories"].read(key)

    logits, features = extract_features(network, images.tensors["images"], network.spec.layers)

    expected = {
        "medoid.cosine": trajectories(features, representatives.medoids, "cosine"),
        "centroid.mahalanobis": trajectories(
            features, representatives.centroids, "mahalanobis", whitening=representatives.whitening
        ),
        "logits": logits,
    }
    for name, value in expected.items():
        torch.testing.assert_close(stored.tensors[name], value, rtol=1e-4, atol=1e-4)
    assert stored.metadata["source_ids"] == images.metadata["source_ids"]
    assert torch.equal(stored.tensors["success"], images.tensors["success"])
    assert torch.equal(stored.tensors["survives"], images.tensors["success"])


def test_trajectories_follow_their_images_and_what_is_read(finished, blocks):
    def plan(training):
        return compute_trajectories(
            finished["adversarials"],
            finished["network_weights"],
            finished["representatives"],
            training,
            blocks["runtime"],
        )

    before = plan(blocks["detector_training"])
    further = DetectorTrainingParams(configurations={"one": DetectorParams(distance="euclidean")})

    assert before.keys == finished["adversarials"].keys()
    assert before.fingerprints == finished["trajectories"].fingerprints()
    assert not set(plan(further).fingerprints.values()) & set(before.fingerprints.values())


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
    model, about = detector(finished, key)
    naturals = rows(finished, "validation", ()).only("natural")
    scores = sorted(score_trajectories(model, naturals.trajectories).tolist(), reverse=True)

    assert about["n_validation_natural"] == len(scores) == 18
    for fpr, threshold in about["thresholds"].items():
        assert threshold == pytest.approx(scores[int(float(fpr) * len(scores))], abs=1e-5)


@pytest.mark.parametrize(
    ("key", "attacks", "criteria"),
    [
        ("cosine/targeted/all/0", ("bim", "cw"), ("targeted",)),
        ("cosine/both/all/0", ("bim", "cw"), BOTH),
    ],
)
def test_the_validation_figure_is_the_mean_auc_over_attacks(finished, key, attacks, criteria):
    model, about = detector(finished, key)
    aucs = []
    for attack in attacks:
        for criterion in criteria:
            part = rows(finished, "validation", (criterion,), attacks=(attack,))
            scores = score_trajectories(model, part.trajectories)
            aucs.append(roc_auc_score([group != "natural" for group in part.groups], scores))

    assert about["validation_macro_auc"] == pytest.approx(sum(aucs) / len(aucs), abs=1e-6)


def test_failed_attacks_are_neither_trained_nor_validated_on(finished):
    kept = rows(finished, "train", BOTH)
    records = finished["attack_records"].query("split == 'train'")

    assert len(kept.groups) == len(records.query("success or attack == 'natural'")) < len(records)
    assert int(kept.as_set().adversarial.sum()) == int(records["success"].sum())


def test_rows_are_ordered_as_the_configuration_says(finished):
    ranked = DetectorParams(kind="mlp", representative="centroid", distance="mahalanobis", order="ranked", top_k=2)
    content = finished["trajectories"].read("natural/validation-0000").tensors

    found = rows(finished, "validation", (), params=ranked)

    expected = order_classes(content["centroid.mahalanobis"], content["logits"], order="ranked", top_k=2)
    assert torch.equal(found.trajectories, expected)
    best = content["logits"].argmax(dim=1)
    first = content["centroid.mahalanobis"].gather(2, best[:, None, None].expand(-1, 5, 1)).squeeze(2)
    assert torch.equal(found.trajectories[:, :, 0], first)


def test_no_shards_of_a_split_is_an_error(tmp_path):
    with pytest.raises(DataError, match="run the pipeline detector_training"):
        stack_rows(read_rows(ShardStore(str(tmp_path)), COSINE, split="train", attacks=("bim",), criteria=BOTH))


@pytest.mark.parametrize("key", ["cosine/untargeted/all/0", "ranked/both/all/0"])
def test_test_images_change_nothing_about_a_detector(finished, detector_plan, tmp_path, key):
    plan = detector_plan()
    work = type(plan.work)(with_other_test_images(finished, tmp_path), *vars_of(plan.work))

    again = work(next(spec.arguments for spec in plan.shards if spec.key == key))

    stored = finished["detectors"].read(key)
    assert again.metadata == stored.metadata
    for name, value in stored.tensors.items():
        assert torch.equal(again.tensors[name], value)


def vars_of(work):
    return work.fit, work.all_attacks, work.fprs, work.runtime, work.made_from


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
    content = finished["detectors"].read(best)

    assert bundle.about["detector"] == best
    assert bundle.thresholds == {float(fpr): value for fpr, value in content.metadata["thresholds"].items()}
    assert bundle.threshold() == content.metadata["thresholds"]["0.05"]
    for name, value in bundle.detector.state_dict().items():
        assert torch.equal(value, content.tensors[name])


def test_the_summary_and_the_histories_repeat_what_is_stored(finished):
    summary, histories = finished["detector_summary"], finished["detector_histories"]

    assert summary["detector"].tolist() == list(finished["detectors"].keys())
    for row in summary.to_dict("records"):
        about = finished["detectors"].metadata(row["detector"])
        assert row["validation_macro_auc_all"] == about["validation_macro_auc_all"]
        assert (row["distance"], row["trained_criterion"]) == (about["params"]["distance"], about["trained_criterion"])
        mine = histories[histories["detector"] == row["detector"]]
        assert mine["epoch"].tolist() == list(range(1, row["epochs"] + 1))
        assert mine["validation_macro_auc"].tolist() == [one["validation_macro_auc"] for one in about["history"]]


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
    model = restore_detector(content.metadata, content.tensors)
    naturals = rows(finished, "validation", ()).only("natural")
    scores = score_trajectories(model, naturals.trajectories).sort(descending=True).values
    assert content.metadata["thresholds"]["0.1"] == pytest.approx(float(scores[1]), abs=1e-5)


def test_a_published_bidirectional_detector_is_taken_over_too(detector_plan, blocks, published):
    held = torch.load(published, weights_only=True)["detector"]
    backward = {f"{name}_reverse": value + 0.5 for name, value in held.items() if name.startswith("lstm.")}
    head = {"classifier.weight": torch.linspace(-1, 1, 10)[None]}
    torch.save({"detector": held | backward | head}, published)
    training = blocks["detector_training"].model_copy(update={"reference_checkpoints": {"paper": str(published)}})
    plan = detector_plan(detector_training=training)

    content = plan.work(next(spec.arguments for spec in plan.shards if spec.key == "paper/targeted/reference/0"))

    assert content.metadata["params"]["kind"] == "bilstm"
    restored = restore_detector(content.metadata, content.tensors)
    rows = torch.rand(4, content.metadata["layers"], 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(restored(rows), load_reference_detector(published)(rows))


def test_another_file_of_the_same_name_makes_a_published_detector_stale(detector_plan, blocks, published):
    training = blocks["detector_training"].model_copy(update={"reference_checkpoints": {"paper": str(published)}})
    before = detector_plan(detector_training=training).fingerprints["paper/targeted/reference/0"]
    held = torch.load(published, weights_only=True)["detector"]
    torch.save({"detector": {name: value + 1 for name, value in held.items()}}, published)

    assert detector_plan(detector_training=training).fingerprints["paper/targeted/reference/0"] != before


def test_images_without_finite_features_are_left_out_and_said(finished, caplog):
    plan = compute_trajectories(
        finished["adversarials"],
        finished["network_weights"],
        finished["representatives"],
        finished["params:detector_training"],
        finished["params:runtime"],
    )
    key = "natural/test-0000"
    content = finished["adversarials"].read(key)
    content.tensors["images"][1, 0, 0, 0] = float("nan")

    class Spoilt:
        def read(self, _):
            return content

    made = replace(plan.work, adversarials=Spoilt())(TrajectoryBlock(shard=key))
    whole = finished["trajectories"].read(key)
    kept = torch.arange(len(whole.tensors["label"])) != 1
    assert made.metadata["source_ids"] == [name for row, name in enumerate(whole.metadata["source_ids"]) if row != 1]
    assert torch.equal(made.tensors["source_index"], whole.tensors["source_index"][kept])
    torch.testing.assert_close(made.tensors["logits"], whole.tensors["logits"][kept])
    assert f"1 of {len(kept)} images of {key} (float) left out" in caplog.text
