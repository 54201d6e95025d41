from __future__ import annotations

import pytest
import torch
from kedro.io import DatasetError

from adv_detect.datasets.sharded import ShardedSafetensorsDataset
from adv_detect.errors import DataError
from adv_detect.params import RuntimeParams
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec


def plan_of(work, count=3):
    shards = tuple(ShardSpec(f"bim/targeted/test-{n:04d}", f"f{n}", n) for n in range(count))
    return ShardPlan(work, shards, RuntimeParams(progress=False), "adversarial examples")


def good(number):
    return ShardContent({"x": torch.full((2,), number)})


def bad_at_two(number):
    if number == 2:
        raise ValueError("no such image")
    return good(number)


def test_stopped_run_does_not_exist_and_says_how_far_it_is(tmp_path):
    dataset = ShardedSafetensorsDataset(filepath=tmp_path / "adversarials", made_by="adversarial_generation")
    with pytest.raises(DatasetError, match=r"adversarial examples: shard 'bim/targeted/test-0002' could not be made"):
        dataset.save(plan_of(bad_at_two))
    assert not dataset.exists()
    expected = (
        r"adversarials is not a complete data set \(2 of 3 shards there\); "
        r"make it with: kedro run --pipeline=adversarial_generation"
    )
    with pytest.raises(DatasetError, match=expected):
        dataset.load()
    dataset.save(plan_of(good))
    assert dataset.exists()
    assert len(dataset.load()) == 3


def test_a_shard_deleted_by_hand_makes_it_incomplete(tmp_path):
    dataset = ShardedSafetensorsDataset(filepath=tmp_path)
    dataset.save(plan_of(good))
    (tmp_path / "bim" / "targeted" / "test-0001.safetensors").unlink()
    assert not dataset.exists()
    with pytest.raises(DatasetError, match=r"\(2 of 3 shards there\); make it with: kedro run$"):
        dataset.load()


def test_loading_reads_no_tensors_and_names_a_shard_with_a_damaged_header(tmp_path):
    dataset = ShardedSafetensorsDataset(filepath=tmp_path, made_by="adversarial_generation")
    dataset.save(plan_of(good))
    path = tmp_path / "bim" / "targeted" / "test-0001.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + b"x")
    store = dataset.load()
    assert store["bim/targeted/test-0000"].tensors["x"].tolist() == [0, 0]
    with pytest.raises(DataError, match=r"test-0001\.safetensors is damaged .*--pipeline=adversarial_generation"):
        store["bim/targeted/test-0001"]
    path.write_bytes(raw[:20] + b"x" + raw[21:])
    with pytest.raises(DatasetError, match=r"test-0001\.safetensors is damaged .*--pipeline=adversarial_generation"):
        dataset.load()
