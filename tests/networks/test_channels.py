"""The channel axis of layers: found by input size, kind of module or tokens, or asked for."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
import torchvision
from torch import nn

from adv_detect.algorithms.features import extract_features
from adv_detect.errors import ConfigurationError
from adv_detect.networks.channels import find_readings
from adv_detect.networks.frozen import working_form
from adv_detect.networks.readings import log_readings
from adv_detect.networks.target import build_target, target_from_spec, target_tensors
from adv_detect.params import NetworkParams


class Permuted(nn.Module):
    """A convolution whose output is passed on with channels last; accepts one size where asked to."""

    def __init__(self, width=8, only=None, num_classes=3):
        super().__init__()
        self.only = only
        self.conv, self.last, self.head = nn.Conv2d(1, width, 1), nn.Identity(), nn.Linear(width, num_classes)
        self.turn = Turn()

    def forward(self, images):
        if self.only is not None and images.shape[-1] != self.only:
            raise AssertionError("another size")
        return self.head(self.last(self.turn(self.conv(images))).mean(dim=(1, 2)))


class Turn(nn.Module):
    def forward(self, maps):
        return maps.permute(0, 2, 3, 1)


def read(network, layers, shape, **more):
    readings = find_readings(
        network, {one: one for one in layers}, shape, forward=lambda one, images: one(images), **more
    )
    return [(one.channels, one.width, one.found_by) for one in readings]


def test_a_swin_transformer_gives_channels_last():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torchvision.models.swin_t().eval()
        images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        logits, features = extract_features(network, images, ["features.1", "features.3"])
        first = network.features[1](network.features[0](images))

    assert logits.shape == (2, 1000)
    assert [tuple(one.shape) for one in features] == [(2, 96), (2, 192)]
    torch.testing.assert_close(features[0], first.mean(dim=(1, 2)))


@pytest.mark.parametrize("size", [8, 9])
def test_as_many_rows_as_channels_do_not_mislead(size):
    assert read(Permuted(8), ["conv", "turn"], (1, size, size)) == [(1, 8, "input size"), (3, 8, "input size")]


def test_memory_format_is_no_axis():
    network = Permuted(5).to(memory_format=torch.channels_last)
    assert read(network, ["conv"], (1, 6, 6)) == [(1, 5, "input size")]


def test_one_size_only_falls_back_to_the_kind_of_module():
    assert read(Permuted(5, only=8), ["conv"], (1, 8, 8)) == [(1, 5, "kind of module")]
    vit = torchvision.models.vision_transformer.VisionTransformer(
        image_size=32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3
    )
    found = read(vit, ["conv_proj", "encoder.layers.encoder_layer_0", "encoder.ln"], (3, 32, 32))
    assert found == [(1, 8, "kind of module"), (2, 8, "kind of module"), (2, 8, "kind of module")]


def test_tokens_with_channels_first_are_found():
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    assert read(network, ["1"], (1, 6, 6)) == [(1, 4, "input size")]


def test_a_mixer_of_tokens():
    timm = pytest.importorskip("timm")
    mixer = timm.models.mlp_mixer.MlpMixer(
        img_size=32, patch_size=16, num_blocks=1, embed_dim=8, num_classes=3, mlp_ratio=(0.5, 2.0)
    )
    assert [one[:2] for one in read(mixer, ["stem", "blocks.0", "norm"], (3, 32, 32))] == [(2, 8)] * 3


def test_what_cannot_be_told_is_asked_for_and_can_be_stated():
    network = Permuted(5, only=8)
    with pytest.raises(ConfigurationError, match=r"layer 'turn' holds its channels.*\(N, 8, 8, 5\).*channels: -1"):
        read(network, ["turn"], (1, 8, 8))
    assert read(network, ["turn"], (1, 8, 8), stated={"turn": -1}) == [(3, 5, "configuration")]
    with pytest.raises(ConfigurationError, match="expected channels of layer 'head' to be an axis"):
        read(network, ["head"], (1, 8, 8), stated={"head": 2})


def test_a_layer_without_an_entry_per_image_is_refused():
    network = nn.Sequential(nn.Flatten(0, 1), nn.Unflatten(0, (-1, 3)), nn.Flatten(), nn.LazyLinear(3))
    network(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ConfigurationError, match="expected one entry per image on the first axis of layer '0'"):
        read(network, ["0"], (3, 4, 4))


def test_probing_leaves_a_network_in_training_as_it_is():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).train()
    before = copy.deepcopy(network.state_dict())

    assert read(network, ["1"], (1, 8, 8)) == [(1, 4, "input size")]

    assert network.training
    torch.testing.assert_close(network.state_dict(), before)


def test_the_axis_is_stored_with_the_network_and_holds_in_its_other_forms():
    layers = ({"name": "conv"}, "turn", {"name": "last", "channels": -1})
    params = NetworkParams(name=f"{__name__}.Permuted", layers=layers)
    target = build_target(params, class_names="abc", image_shape=(1, 8, 8)).freeze()
    assert target.spec.layers == ("conv", "turn", "last")
    assert [one.channels for one in target.spec.readings] == [1, 3, 3]

    old = target.spec.model_validate({**target.spec.model_dump(), "readings": ()})
    restored = target_from_spec(old, target_tensors(target)).freeze()
    assert [one.channels for one in restored.spec.readings] == [1, 3, 3]
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = extract_features(target, images, target.spec.layers)[1]
    assert [one.shape[1] for one in wanted] == [8, 8, 8]
    for other in (restored, working_form(target, torch.device("cpu"))):
        torch.testing.assert_close(extract_features(other, images, target.spec.layers)[1], wanted)


@pytest.mark.parametrize(("layers", "warned"), [(("conv", "last"), False), (("last", "conv"), True)])
def test_layers_are_logged_and_a_foreign_order_is_warned_of(caplog, layers, warned):
    params = NetworkParams(name=f"{__name__}.Permuted", layers=layers)
    target = build_target(params, class_names="abc", image_shape=(1, 8, 8))

    with caplog.at_level(logging.INFO):
        log_readings(target.spec.readings)

    assert target.spec.layers == layers
    assert "layer last gives (N, 8, 8, 8): channels on axis 3 (by input size), width 8" in caplog.text
    assert ("not in the order in which the network runs them, which is [conv, last]" in caplog.text) == warned


def test_channels_of_the_images_axis_are_refused():
    with pytest.raises(ValueError, match="0 is the axis of the images"):
        NetworkParams(layers=({"name": "a", "channels": 0},))
