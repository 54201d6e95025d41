"""Worker processes give what one process gives, bit for bit where both compute in one thread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from adv_detect.pipelines.detector_training.nodes import train_detectors
from adv_detect.pipelines.evaluation.nodes import score_images
from adv_detect.sharding import ShardStore, execute_plan
from adv_detect.workers import close_workers

SCORED = ["activations", "control_activations", "detectors", "control_detectors", "thresholds", "representatives"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    close_workers()


@pytest.fixture
def runtime(blocks):
    return blocks["runtime"].model_copy(update={"processes": 2})


def test_detectors_are_equal(finished, blocks, runtime, tmp_path):
    names = ("detector_training", "adversarial_generation")
    plan = train_detectors(
        finished["activations"], finished["representatives"], *(blocks[name] for name in names), runtime
    )
    store, alone = ShardStore(str(tmp_path)), finished["detectors"]

    execute_plan(plan, store)

    assert store.digest == alone.digest
    assert list(store) == list(alone)
    for key, content in store.items():
        assert store.fingerprint(key) == alone.fingerprint(key)
        assert content.metadata == alone.metadata(key)
        expected = alone[key].tensors
        assert content.tensors.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in content.tensors.items()), key


def test_scores_are_equal(finished, blocks, runtime, tmp_path):
    parameters = (blocks[name] for name in ("adversarial_generation", "evaluation"))

    store, alone = ShardStore(str(tmp_path)), finished["scores"]
    execute_plan(score_images(*(finished[name] for name in SCORED), *parameters, runtime), store)

    assert store.digest == alone.digest
    for key, content in store.items():
        assert content.metadata == alone.metadata(key)
        assert all(torch.equal(tensor, alone[key].tensors[name]) for name, tensor in content.tensors.items()), key
