from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adv_detect.errors import ConfigurationError
from adv_detect.networks import build_network, default_layers, load_weights


def small_by_hand(state: dict[str, Tensor], images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Compute logits and the five layers straight from the published tensor names."""

    def conv(index: int, inputs: Tensor) -> Tensor:
        name = f"feature_extractor.conv{index}"
        return functional.relu(functional.conv2d(inputs, state[f"{name}.weight"], state[f"{name}.bias"]))

    def dense(index: int, inputs: Tensor) -> Tensor:
        return inputs @ state[f"classifier.fc{index}.weight"].T + state[f"classifier.fc{index}.bias"]

    second = conv(2, conv(1, images))
    third = conv(3, functional.max_pool2d(second, 2))
    fourth = conv(4, third)
    fifth = dense(1, functional.max_pool2d(fourth, 2).flatten(1)).clamp(min=0)
    sixth = dense(2, fifth).clamp(min=0)
    return dense(3, sixth), [second, third, fourth, fifth, sixth]


def test_layers_and_logits_agree_with_a_functional_computation(
    tmp_path, small_reference_state, read_layers, assert_all_close
):
    path = tmp_path / "small.pth"
    torch.save({"model_state_dict": small_reference_state, "epoch": 3}, path)
    network = build_network("small")
    load_weights(network, path)
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))

    logits, layers = read_layers(network, images, default_layers("small"))

    expected_logits, expected_layers = small_by_hand(small_reference_state, images)
    assert_all_close([logits, *layers], [expected_logits, *expected_layers])


def test_five_layers_are_read():
    assert len(default_layers("small")) == 5


def test_convolutions_start_from_kaiming_and_the_last_layer_from_zero():
    torch.manual_seed(0)
    network = build_network("small")
    expected = (2.0 / (64 * 9)) ** 0.5
    assert network.get_parameter("convolutions.conv4.weight").std().item() == pytest.approx(expected, rel=0.05)
    assert not network.get_parameter("dense.fc3.weight").any()
    assert not network.get_parameter("dense.fc3.bias").any()


def test_other_image_sizes_channels_and_class_counts():
    network = build_network("small", num_classes=7, in_channels=3, image_size=32)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ConfigurationError, match=r"image_size: expected at least 16 pixels, got 15"):
        build_network("small", image_size=15)
    assert build_network("small", image_size=16)(torch.zeros(1, 1, 16, 16)).shape == (1, 10)
