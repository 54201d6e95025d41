from __future__ import annotations

import pytest
import torch

from adv_detect.errors import DataError
from adv_detect.jobs.activations import natural_activations, successful_attacks
from adv_detect.jobs.detectors import DetectorJob
from adv_detect.params import DetectorParams
from adv_detect.sharding import ShardContent, ShardStore

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
