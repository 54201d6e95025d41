"""Synthetic work: every image is attacked, nothing is stored, features fit."""

from __future__ import annotations

import torch
from benchmarks.growth import IMAGE, IMAGES, MIB, Noise, _class_features, _fit, generation_plan

from adv_detect.sharding import ShardStore, execute_plan


def test_every_image_of_noise_is_attacked(tmp_path):
    plan = generation_plan(40, shard=16, steps=1)
    store = ShardStore(str(tmp_path))

    execute_plan(plan, store)

    shards = [store[spec.key] for spec in plan.shards if spec.key.startswith("bim/")]
    assert sum(len(shard.tensors["label"]) for shard in shards) == 40
    assert max(float(shard.tensors["linf"].max()) for shard in shards) > 0


def test_noise_is_the_same_each_time_and_too_much_to_hold():
    assert torch.equal(Noise(3)[2][0], Noise(5)[2][0])
    assert 10 * IMAGES * Noise(1)[0][0].nbytes / MIB > 600
    assert tuple(Noise(1)[0][0].shape) == IMAGE


def test_synthetic_classes_have_representatives():
    found = _fit(_class_features(30))

    assert found.medoids[0].shape == found.centroids[0].shape == (30, 64)
    assert bool(torch.isfinite(found.whitening[0]).all())
