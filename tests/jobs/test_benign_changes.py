"""Which shards benign changes make, and how they are matched with the unchanged images."""

from __future__ import annotations

import torch

from adv_detect.jobs.benign_changes import benign_blocks, changed_images
from adv_detect.params import BenignChangeParams
from adv_detect.sharding import ShardContent, ShardStore

KEYS = ("natural/train-0000", "natural/test-0000", "natural/test-0001", "cw/targeted/test-0000")


def content(index: list[int], predicted: list[int]) -> ShardContent:
    tensors = {
        "source_index": torch.tensor(index),
        "predicted": torch.tensor(predicted),
        "label": torch.zeros(len(index), dtype=torch.int64),
        "logits": torch.eye(3)[predicted],
        "features.a": torch.tensor(index, dtype=torch.float32)[:, None],
    }
    return ShardContent(tensors, {"layers": ["a"]})


def test_natural_images_of_the_chosen_splits_are_changed_with_a_seed_per_shard(tmp_path):
    images = ShardStore(str(tmp_path))
    for key in KEYS:
        images.write(key, content([0], [0]), key)
    changes = {"noise-2": BenignChangeParams(kind="noise"), "blur.5": BenignChangeParams(kind="blur")}

    blocks = benign_blocks(images, changes, seed=0)

    assert list(blocks) == [f"benign/{name}/test-{number:04d}" for name in changes for number in (0, 1)]
    first, second = blocks["benign/noise-2/test-0000"], blocks["benign/noise-2/test-0001"]
    assert (first.shard, first.variant, first.change) == ("natural/test-0000", "benign", changes["noise-2"])
    assert first.seed != second.seed
    assert len(benign_blocks(images, changes, seed=0, splits=("train", "test"))) == 6


def test_images_are_matched_by_their_source(tmp_path):
    natural, benign = ShardStore(str(tmp_path / "natural")), ShardStore(str(tmp_path / "benign"))
    natural.write("natural/test-0000", content([4, 5], [0, 1]), "a")
    natural.write("natural/test-0001", content([7], [2]), "b")
    benign.write("benign/x/test-0000", content([5], [0]), "c")  # 4 had activations that are not finite
    benign.write("benign/x/test-0001", content([7, 9], [2, 1]), "d")  # 9 had none when unchanged

    found = dict(changed_images(natural, benign, ["x"]))

    assert found["unchanged"].before.tolist() == found["unchanged"].predicted.tolist() == [0, 1, 2]
    assert found["x"].activations.features["a"].flatten().tolist() == [5, 7]
    assert found["x"].before.tolist() == [1, 2]
    assert found["x"].predicted.tolist() == [0, 2]
    assert len(found["x"].label) == 2
