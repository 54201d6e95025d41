"""Activations of stored images, against direct computations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adv_detect.algorithms.features import extract_features
from adv_detect.errors import DataError
from adv_detect.jobs.activation_plans import ActivationBlock, activation_plan
from adv_detect.jobs.activations import natural_activations, read_activations, successful_attacks
from adv_detect.jobs.detectors import DetectorJob
from adv_detect.params import DetectorParams
from adv_detect.sharding import ShardContent, ShardStore

BOTH = ("targeted", "untargeted")
KEYS = (
    "8bit/bim/targeted/train-0000",
    "benign/jpeg-75/train-0000",
    "bim/targeted/train-0000",
    "bim/untargeted/train-0000",
    "bim/untargeted/train-0001",
    "bim/untargeted/test-0000",
    "cw/untargeted/train-0000",
    "natural/train-0000",
    "natural/train-0001",
    "natural/validation-0000",
)
MADE_FROM = ("adversarials", "network_weights", "representatives")


@pytest.mark.parametrize("key", ["natural/test-0000", "bim/targeted/train-0001", "cw/untargeted/validation-0000"])
def test_activations_equal_a_direct_computation(finished, key):
    network = finished["network_weights"]
    images, stored = finished["adversarials"][key], finished["activations"][key]

    logits, features = extract_features(network, images.tensors["images"], network.spec.layers)

    found = read_activations(stored)
    torch.testing.assert_close(found.logits, logits, rtol=1e-4, atol=1e-4)
    assert tuple(found.features) == network.spec.layers
    for name, value in zip(network.spec.layers, features, strict=True):
        torch.testing.assert_close(found.features[name], value, rtol=1e-4, atol=1e-4)
    assert stored.metadata["source_ids"] == images.metadata["source_ids"]
    assert torch.equal(stored.tensors["success"], images.tensors["success"])
    assert torch.equal(stored.tensors["survives"], images.tensors["success"])


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


def test_where_an_attack_left_nothing_there_are_no_successes(finished):
    assert successful_attacks(finished["activations"], split="train", attacks=("jsma",), criteria=BOTH) is None


def test_images_without_finite_features_are_left_out_and_said(finished, blocks, caplog):
    key = "natural/test-0000"
    block = ActivationBlock(shard=key)
    plan = activation_plan(*(finished[name] for name in MADE_FROM), {key: block}, runtime=blocks["runtime"])
    content = finished["adversarials"][key]
    content.tensors["images"][1, 0, 0, 0] = float("nan")

    class Spoilt:
        def __getitem__(self, _):
            return content

    made = replace(plan.work, adversarials=Spoilt())(block)
    whole = finished["activations"][key]
    kept = torch.arange(len(whole.tensors["label"])) != 1
    assert made.metadata["source_ids"] == [name for row, name in enumerate(whole.metadata["source_ids"]) if row != 1]
    assert torch.equal(made.tensors["source_index"], whole.tensors["source_index"][kept])
    torch.testing.assert_close(made.tensors["logits"], whole.tensors["logits"][kept])
    assert f"1 of {len(kept)} images of {key} (float) left out" in caplog.text


@pytest.fixture
def store(tmp_path):
    """Two images a shard, both with the number of the shard as their logit, the first one a success."""
    store = ShardStore(str(tmp_path))
    for number, key in enumerate(KEYS):
        tensors = {"logits": torch.full((2, 1), float(number)), "features.last": torch.zeros(2, 3)}
        store.write(key, ShardContent(tensors | {"success": torch.tensor([True, False])}, {"layers": ["last"]}), key)
    return store


def test_a_detector_learns_from_natural_images_then_from_its_attacks_in_their_order(store):
    job = DetectorJob("one", DetectorParams(), "both", "all", ("cw", "bim"), 0)

    assert job.key == "one/both/all/0"
    assert job.shards(store) == [
        "natural/train-0000",
        "natural/train-0001",
        "cw/untargeted/train-0000",
        "bim/targeted/train-0000",
        "bim/untargeted/train-0000",
        "bim/untargeted/train-0001",
        "natural/validation-0000",
    ]


def test_natural_activations_are_those_of_unchanged_images(store):
    assert natural_activations(store, "train").logits.flatten().tolist() == [7, 7, 8, 8]
    with pytest.raises(DataError, match="no natural images of the test split"):
        natural_activations(store, "test")


def test_successes_come_with_their_groups_in_the_order_asked_for(store):
    found = successful_attacks(store, split="train", attacks=["cw", "bim"], criteria=["untargeted"])

    assert found.logits.flatten().tolist() == [6, 3, 4]
    assert found.groups == ("cw/untargeted", "bim/untargeted", "bim/untargeted")
    assert successful_attacks(store, split="validation", attacks=["bim"], criteria=["untargeted"]) is None
