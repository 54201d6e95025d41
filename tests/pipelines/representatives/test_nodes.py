"""Class representatives from stored features."""

from __future__ import annotations

import pytest
import torch
from sklearn.covariance import LedoitWolf

from adv_detect.errors import DataError
from adv_detect.params import RepresentativesParams, RuntimeParams
from adv_detect.pipelines.representatives.nodes import _by_class, compute_representatives
from adv_detect.sharding import ShardContent, ShardStore


def stored(finished, label, layer):
    contents = [content for key, content in finished["features"].items() if key.startswith(f"{label:05d}/")]
    names = [name for content in contents for name in content.metadata["source_ids"]]
    return torch.cat([content.tensors[f"layer.{layer:03d}"] for content in contents]), names


@pytest.mark.parametrize("label", [0, 1, 2])
def test_medoids_and_centroids_equal_a_direct_computation(finished, label):
    representatives = finished["representatives"]

    for layer in range(5):
        features, names = stored(finished, label, layer)
        medoid = int(torch.cdist(features.double(), features.double()).sum(dim=1).argmin())
        torch.testing.assert_close(representatives.medoids[layer][label], features[medoid])
        torch.testing.assert_close(representatives.centroids[layer][label], features.double().mean(dim=0).float())
        assert representatives.medoid_source_ids[layer][label] == names[medoid]


@pytest.mark.parametrize("layer", range(5))
def test_the_whitening_undoes_the_shrunk_within_class_covariance(finished, layer):
    parts = [stored(finished, label, layer)[0].double() for label in range(3)]
    centred = torch.cat([part - part.mean(dim=0) for part in parts])
    shrunk = LedoitWolf(assume_centered=True).fit(centred.numpy()).covariance_

    whitening = finished["representatives"].whitening[layer].double()

    width = centred.shape[1]
    whitened = whitening @ torch.from_numpy(shrunk) @ whitening
    torch.testing.assert_close(whitened, torch.eye(width, dtype=torch.float64), rtol=0.02, atol=0.05)


def test_a_class_without_a_correct_image_is_named(finished, tmp_path):
    store = ShardStore(str(tmp_path))
    for key, content in finished["features"].items():
        if not key.startswith("00001/"):
            store.write(key, ShardContent(content.tensors, content.metadata), "f")

    deferred = compute_representatives(store, finished["network_weights"], RepresentativesParams(), RuntimeParams())
    with pytest.raises(DataError, match="'middle'"):
        deferred.make()


def test_other_features_or_parameters_ask_for_new_representatives(finished, tmp_path):
    def fingerprint(content_fingerprint="f", **params):
        store = ShardStore(str(tmp_path))
        for key, content in finished["features"].items():
            store.write(key, ShardContent(content.tensors, content.metadata), content_fingerprint)
        return compute_representatives(
            store, finished["network_weights"], RepresentativesParams(**params), RuntimeParams()
        ).fingerprint

    assert fingerprint() == fingerprint()
    assert fingerprint() != fingerprint("g")
    assert fingerprint() != fingerprint(shrinkage="oas")


def listed_and_read(folder, classes, monkeypatch):
    """Paths listed and shards read by the representatives of a store with one shard per class."""
    store = ShardStore(str(folder))
    for label in range(classes):
        content = ShardContent(
            {"layer.000": torch.eye(3), "source_index": torch.arange(3)}, {"source_ids": list("abc")}
        )
        store.write(f"{label:05d}/0000", content, "made")
    counts = {"listed": 0, "read": 0}

    def files(self, *folders):
        found = whole(self, *folders)
        counts["listed"] += len(found)
        return found

    def read(self, *arguments, **named):
        counts["read"] += 1
        return single(self, *arguments, **named)

    whole, single = ShardStore._files, ShardStore.__getitem__
    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "_files", files)
        patch.setattr(ShardStore, "__getitem__", read)
        labels = [label for label, _, _ in _by_class(store, 1, shown=False)]
    assert labels == list(range(classes))
    return counts


def test_work_grows_with_the_number_of_classes_not_its_square(tmp_path, monkeypatch):
    few, many = (listed_and_read(tmp_path / str(classes), classes, monkeypatch) for classes in (10, 40))
    assert few == {"listed": 10, "read": 10}
    assert many == {"listed": 40, "read": 40}
