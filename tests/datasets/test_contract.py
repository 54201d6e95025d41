"""What every dataset of ours does: round trip or a clear refusal, exists, describe, absent files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
import torch
from kedro.io import AbstractDataset, DatasetError

from adv_detect.datasets.embedded_mnist import EmbeddedMNISTDataset
from adv_detect.datasets.image_folder import ImageFolderDataset
from adv_detect.datasets.network import NetworkDataset
from adv_detect.datasets.representatives import RepresentativesDataset
from adv_detect.datasets.sharded import ShardedSafetensorsDataset
from adv_detect.datasets.torchvision_images import TorchvisionImagesDataset
from adv_detect.images import ImageSet
from adv_detect.params import RuntimeParams
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec


@dataclass(frozen=True)
class Stored:
    """A dataset that is written and read: its class, its file, what is saved, how both sides are compared."""

    make: type[AbstractDataset[Any, Any]]
    name: str
    content: str
    flatten: Any
    pipeline: str


def flatten_network(network):
    return {"spec": network.spec, **network.state_dict()}


def flatten_representatives(one):
    parts = {
        f"{name}{i}": t for name in ("medoids", "centroids", "whitening") for i, t in enumerate(getattr(one, name))
    }
    return {"names": (one.layers, one.class_names, one.medoid_source_ids), **parts}


def flatten_shards(store):
    made = isinstance(store, ShardPlan)
    pairs = ((s.key, store.work(s.arguments)) for s in store.shards) if made else store.items()
    return {key: content.tensors["x"] for key, content in pairs}


STORED = [
    Stored(NetworkDataset, "net.safetensors", "target", flatten_network, "target_training"),
    Stored(RepresentativesDataset, "r.safetensors", "representatives", flatten_representatives, "representatives"),
    Stored(ShardedSafetensorsDataset, "shards", "plan", flatten_shards, "feature_extraction"),
]


@pytest.fixture
def plan():
    shards = tuple(ShardSpec(f"part/{n}", str(n), n) for n in range(3))
    return ShardPlan(
        lambda n: ShardContent({"x": torch.full((2,), n)}), shards, RuntimeParams(progress=False), "numbers"
    )


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"memory://{uuid4().hex}"


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]


@pytest.mark.parametrize("case", STORED, ids=lambda case: case.make.__name__)
class TestStored:
    def test_kedro_sees_the_arguments_by_name(self, case, tmp_path):
        arguments = {"filepath": str(tmp_path / case.name), "made_by": "mine"}
        kind = f"{case.make.__module__}.{case.make.__name__}"
        assert case.make(**arguments)._init_config() == {"type": kind, **arguments}
        assert AbstractDataset.from_config("it", {"type": kind, **arguments})._describe()["made_by"] == "mine"

    def test_a_misspelt_argument_is_refused(self, case, tmp_path):
        with pytest.raises(DatasetError, match="must only contain arguments valid for the constructor"):
            AbstractDataset.from_config("it", {"type": case.make, "filepath": str(tmp_path / case.name), "made": "x"})

    def test_round_trip(self, case, place, request):
        content = request.getfixturevalue(case.content)
        case.make(filepath=f"{place}/deep/{case.name}").save(content)
        again = case.make(filepath=f"{place}/deep/{case.name}")
        assert again.exists()
        same(case.flatten(content), case.flatten(again.load()))

    def test_saving_again_replaces(self, case, place, request):
        dataset = case.make(filepath=f"{place}/{case.name}")
        content = request.getfixturevalue(case.content)
        dataset.save(content)
        dataset.save(content)
        same(case.flatten(content), case.flatten(dataset.load()))

    def test_absent_says_which_pipeline_to_run(self, case, place):
        dataset = case.make(filepath=f"{place}/{case.name}", made_by=case.pipeline)
        assert not dataset.exists()
        with pytest.raises(DatasetError, match=rf"{case.name}.*kedro run --pipeline={case.pipeline}"):
            dataset.load()

    def test_something_else_is_refused(self, case, place):
        with pytest.raises(DatasetError, match=r"expected .*, got dict"):
            case.make(filepath=f"{place}/{case.name}").save({"a": 1})

    def test_describes_its_place(self, case, place):
        assert f"{case.name}" in repr(case.make(filepath=f"{place}/{case.name}"))

    def test_made_from_a_catalog_entry(self, case, place, request):
        config = {
            "type": f"{case.make.__module__}.{case.make.__name__}",
            "filepath": f"{place}/{case.name}",
            "made_by": case.pipeline,
            "credentials": {},
            "fs_args": {"skip_instance_cache": True},
            "metadata": {"kedro-viz": {"layer": "models"}},
        }
        dataset = AbstractDataset.from_config("entry", config)
        assert dataset.metadata == config["metadata"]
        dataset.save(request.getfixturevalue(case.content))
        assert dataset.exists()


def embedded(request):
    return EmbeddedMNISTDataset(part="test", max_images=20, metadata={"a": 1})


def folder(request):
    return ImageFolderDataset(filepath=request.getfixturevalue("folder"), metadata={"a": 1})


def torchvision(request):
    root = str(request.getfixturevalue("raw").parents[1])
    return TorchvisionImagesDataset(dataset="MNIST", filepath=root, train=True, metadata={"a": 1})


@pytest.fixture(params=[embedded, folder, torchvision], ids=lambda make: make.__name__)
def image_dataset(request):
    return request.param(request)


class TestImages:
    def test_gives_an_image_set(self, image_dataset):
        images = image_dataset.load()
        assert isinstance(images, ImageSet)
        assert len(images) == len(images.source_ids) == len(images.labels) == len(set(images.source_ids))
        assert images.labels.dtype == torch.int64
        assert int(images.labels.max()) == len(images.class_names) - 1
        image, label = images[len(images) - 1]
        assert (image.dtype, image.ndim, type(label)) == (torch.uint8, 3, int)
        assert label == images.labels[-1]

    def test_loading_twice_gives_the_same(self, image_dataset):
        one, other = image_dataset.load(), image_dataset.load()
        assert one.source_ids == other.source_ids
        assert torch.equal(one.labels, other.labels)
        assert one.identity == other.identity
        assert all(torch.equal(one[index][0], other[index][0]) for index in range(3))

    def test_travels_to_another_process(self, image_dataset):
        import pickle

        images = image_dataset.load()
        copy = pickle.loads(pickle.dumps(images))
        assert torch.equal(copy[1][0], images[1][0])
        assert copy.source_ids == images.source_ids

    def test_saving_is_refused(self, image_dataset):
        with pytest.raises(DatasetError, match=r"is read-only, got list to save; write images with another tool"):
            image_dataset.save([1])

    def test_exists_and_describes_itself(self, image_dataset):
        assert image_dataset.exists()
        assert "max_images" in str(image_dataset._describe())
        assert image_dataset.metadata == {"a": 1}
