"""The network under attack: trained once, or read from a checkpoint."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from kedro.io import DatasetError
from safetensors.torch import save_file

from adv_detect.algorithms.target_training import measure_accuracy
from adv_detect.datasets.network import NetworkDataset
from adv_detect.errors import DataError
from adv_detect.images import load_images
from adv_detect.networks.target import target_tensors
from adv_detect.params import NetworkParams, TargetTrainingParams
from adv_detect.pictures import Transform
from adv_detect.pipelines.target_training import create_pipeline
from adv_detect.pipelines.target_training.nodes import describe_target, train_target

CPU = torch.device("cpu")


@pytest.fixture
def deferred(finished, blocks):
    def make(**changes):
        values = {name: blocks[name] for name in ("network", "target_training", "runtime")} | changes
        images = {name: values.pop(name, finished[name]) for name in ("train_images", "test_images")}
        return train_target(**images, **values)

    return make


def test_the_stored_network_says_how_pictures_become_its_input(deferred, stripes):
    steps = Transform(resize_shorter_side=30, centre_crop=(28, 28), colour="grayscale")
    images = stripes(50, seed=0, name="train")
    before = deferred(train_images=images).fingerprint
    images.pictures = Transform(colour="grayscale")
    assert deferred(train_images=images).fingerprint == before
    images.pictures = steps
    changed = deferred(train_images=images, target_training=TargetTrainingParams(epochs=1))
    assert deferred(train_images=images).fingerprint != before
    assert changed.make().spec.pictures == steps


def test_the_stored_network_has_learnt_and_knows_its_accuracy(finished, blocks):
    network, images = finished["network_weights"], finished["test_images"]

    assert network.spec.accuracy == measure_accuracy(network, images, batch_size=7, device=CPU)
    assert network.spec.accuracy > 0.8
    assert [row["epoch"] for row in network.spec.history] == [1.0, 2.0, 3.0, 4.0]
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_an_up_to_date_network_is_not_trained_again(finished, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr("adv_detect.pipelines.target_training.nodes.fit_target", refuse)

    finished.run(create_pipeline().only_nodes("train_target"))


def test_the_fingerprint_names_every_ingredient(deferred, blocks, stripes):
    base = deferred().fingerprint
    changed = [
        deferred(runtime=blocks["runtime"].model_copy(update={"seed": 1})),
        deferred(target_training=blocks["target_training"].model_copy(update={"epochs": 5})),
        deferred(network=NetworkParams(bounds=(0.0, 255.0))),
        deferred(train_images=stripes(49, seed=0, name="train")),
        deferred(test_images=stripes(29, seed=0, name="test")),
    ]

    assert deferred().fingerprint == base
    assert deferred(runtime=blocks["runtime"].model_copy(update={"progress": True})).fingerprint == base
    assert len({base, *(one.fingerprint for one in changed)}) == 6


def test_a_checkpoint_is_read_and_not_trained(finished, deferred, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file(target_tensors(finished["network_weights"]), file)
    configured = NetworkParams(checkpoint=str(file))

    target = deferred(network=configured, target_training=TargetTrainingParams(epochs=1, min_accuracy=0.5)).make()

    images = load_images(finished["test_images"], range(5), (0.0, 1.0))
    assert torch.equal(target(images), finished["network_weights"](images))
    assert target.spec.accuracy == finished["network_weights"].spec.accuracy
    assert target.spec.history == ()


def test_another_checkpoint_file_of_the_same_name_is_noticed(finished, deferred, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file(target_tensors(finished["network_weights"]), file)
    configured = NetworkParams(checkpoint=str(file))
    before = deferred(network=configured).fingerprint
    longer = deferred(network=configured, target_training=TargetTrainingParams(epochs=9, min_accuracy=0.5)).fingerprint
    os.utime(file, ns=(0, 0))

    assert longer == before, "training has no part in a network with a checkpoint"
    assert deferred(network=configured).fingerprint != before


def test_a_network_that_has_not_learnt_stops_the_run(deferred):
    strict = TargetTrainingParams(epochs=1, learning_rate=1e-9, min_accuracy=0.95)

    one = deferred(target_training=strict)
    made = one.make()
    with pytest.raises(DataError, match=r"at least 0.950 on the test images, got 0\.\d+; train longer"):
        one.check(made)


class OnlyRead:
    """A checkpoint of a training that is over: nothing more may be learned."""

    def __init__(self, kept) -> None:
        self.read = kept.read

    def write(self, *_) -> None:
        pytest.fail("trained anew")


def test_another_demand_trains_nothing_anew_and_is_made_of_the_stored_network_too(deferred, blocks, tmp_path):
    asks = {demand: blocks["target_training"].model_copy(update={"min_accuracy": demand}) for demand in (0.0, 0.5, 1.1)}
    easy, usual, unmet = (deferred(target_training=asks[demand]) for demand in (0.0, 0.5, 1.1))
    dataset = NetworkDataset(filepath=str(tmp_path / "network.safetensors"))
    with pytest.raises(DatasetError, match=r"expected an accuracy of at least 1.100 on the test images, got \d"):
        dataset.save(unmet)
    kept = replace(easy, make=lambda checkpoint: easy.make(OnlyRead(checkpoint)))

    assert len({one.fingerprint for one in (easy, usual, unmet)}) == 1
    assert not dataset.exists()
    dataset.save(kept)
    dataset.save(replace(usual, make=None))
    with pytest.raises(DatasetError, match="which keeps what was trained"):
        dataset.save(unmet)
    assert dataset.load().spec.accuracy >= 0.5


def test_the_description_counts_parameters(finished):
    description, metrics = describe_target(finished["network_weights"])

    assert description["name"] == "small"
    assert description["class_names"] == ["left", "middle", "right"]
    assert description["parameters"] == sum(
        value.numel() for value in finished["network_weights"].state_dict().values()
    )
    assert metrics == {"target_accuracy": finished["network_weights"].spec.accuracy}
