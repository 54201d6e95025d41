"""Features of correctly classified training images."""

from __future__ import annotations

import torch

from adv_detect.algorithms.features import extract_features
from adv_detect.images import load_images
from adv_detect.params import FeatureExtractionParams
from adv_detect.pipelines.feature_extraction.nodes import extract_class_features
from adv_detect.sharding import fingerprint


class Identified:
    """An image set that says of itself what decides its pixels."""

    def __init__(self, images, identity):
        self._images = images
        self.identity = identity

    def __getattr__(self, name):
        return getattr(self._images, name)


def plan(finished, blocks, *, images=None, limit=30, **runtime):
    return extract_class_features(
        images or finished["train_images"],
        finished["network_weights"],
        FeatureExtractionParams(max_images_per_class=limit),
        blocks["runtime"].model_copy(update=runtime),
    )


def test_shards_hold_the_features_of_correct_images_and_of_no_others(finished):
    images, network = finished["train_images"], finished["network_weights"]
    everything = load_images(images, range(len(images)), network.spec.bounds)
    logits, features = extract_features(network, everything, network.spec.layers)
    correct = logits.argmax(dim=1) == images.labels
    seen = []

    for key, content in finished["features"].items():
        rows = content.tensors["source_index"]
        seen += rows.tolist()
        assert bool(correct[rows].all())
        assert set(images.labels[rows].tolist()) <= {int(key.split("/")[0])}
        assert content.metadata["source_ids"] == [images.source_ids[row] for row in rows]
        for number, layer in enumerate(features):
            torch.testing.assert_close(content.tensors[f"layer.{number:03d}"], layer[rows], rtol=1e-4, atol=1e-5)

    first_of_class = [torch.nonzero(images.labels == label).flatten()[:30] for label in range(3)]
    taken = torch.cat(first_of_class)
    assert sorted(seen) == sorted(taken[correct[taken]].tolist())
    assert len(seen) < len(taken), "mislabelled images are left out"


def test_a_class_is_cut_into_shards_of_the_configured_size(finished, blocks):
    keys = plan(finished, blocks, limit=30, shard_size=13).keys

    assert keys[:4] == ("00000/0000", "00000/0001", "00000/0002", "00001/0000")
    assert [len(one.arguments.indices) for one in plan(finished, blocks, shard_size=13).shards[:3]] == [13, 13, 4]


def test_only_what_decides_a_feature_decides_its_fingerprint(finished, blocks, stripes):
    base = plan(finished, blocks).fingerprints

    assert plan(finished, blocks, batch_size=3, progress=True).fingerprints == base
    other = plan(finished, blocks, images=stripes(50, seed=0, name="other")).fingerprints
    assert not set(other.values()) & set(base.values())


def test_other_pixels_under_the_same_names_are_noticed(finished, blocks):
    images = finished["train_images"]
    small, large = (
        plan(finished, blocks, images=Identified(images, fingerprint("resized to", size))) for size in (28, 32)
    )

    assert not set(small.fingerprints.values()) & set(large.fingerprints.values())
