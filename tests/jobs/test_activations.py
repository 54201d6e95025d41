"""Activations of stored images, against direct computations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adv_detect.algorithms.features import extract_features
from adv_detect.errors import DataError
from adv_detect.jobs.activations import (
    ActivationBlock,
    activation_plan,
    natural_activations,
    read_activations,
    shard_keys,
    successful_attacks,
)
from adv_detect.sharding import ShardStore

BOTH = ("targeted", "untargeted")
MADE_FROM = ("adversarials", "network_weights", "representatives")


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


def test_natural_images_come_first_then_attack_by_attack(finished):
    keys = shard_keys(finished["activations"], split="validation", attacks=("cw", "bim"), criteria=("targeted",))

    fronts = list(dict.fromkeys(key.rpartition("-")[0] for key in keys))
    assert fronts == ["natural/validation", "cw/targeted/validation", "bim/targeted/validation"]


def test_where_an_attack_left_nothing_there_are_no_successes(finished):
    assert successful_attacks(finished["activations"], split="train", attacks=("jsma",), criteria=BOTH) is None


def test_images_without_finite_features_are_left_out_and_said(finished, blocks, caplog):
    key = "natural/test-0000"
    block = ActivationBlock(shard=key)
    plan = activation_plan(*(finished[name] for name in MADE_FROM), {key: block}, runtime=blocks["runtime"])
    content = finished["adversarials"].read(key)
    content.tensors["images"][1, 0, 0, 0] = float("nan")

    class Spoilt:
        def read(self, _):
            return content

    made = replace(plan.work, adversarials=Spoilt())(block)
    whole = finished["activations"].read(key)
    kept = torch.arange(len(whole.tensors["label"])) != 1
    assert made.metadata["source_ids"] == [name for row, name in enumerate(whole.metadata["source_ids"]) if row != 1]
    assert torch.equal(made.tensors["source_index"], whole.tensors["source_index"][kept])
    torch.testing.assert_close(made.tensors["logits"], whole.tensors["logits"][kept])
    assert f"1 of {len(kept)} images of {key} (float) left out" in caplog.text
