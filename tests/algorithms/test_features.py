"""Features: pooling, hooks and wrong layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from adv_detect.algorithms.features import capture_activations, extract_features, pool_activation
from adv_detect.errors import ConfigurationError
from adv_detect.networks.target import TargetNetwork, build_target
from adv_detect.params import NetworkParams, PreprocessingParams

LAYERS = ("conv", "relu", "head")


class TinyNetwork(nn.Module):
    """One convolution, an in-place ReLU and a linear head; calls its ReLU as often as asked."""

    def __init__(self, relu_calls: int = 1) -> None:
        super().__init__()
        self.relu_calls = relu_calls
        self.conv = nn.Conv2d(1, 3, 3)
        self.relu = nn.ReLU(inplace=True)
        self.pair = nn.Identity()
        self.unused = nn.Identity()
        self.head = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.conv(images)
        for _ in range(self.relu_calls):
            hidden = self.relu(hidden)
        self.pair((hidden, hidden))
        return self.head(hidden.mean(dim=(2, 3)))


def tiny(relu_calls: int = 1) -> TinyNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyNetwork(relu_calls).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_features_equal_what_the_layers_give_by_hand(images):
    network = tiny()
    logits, features = extract_features(network, images, LAYERS)
    raw = nn.functional.conv2d(images, network.conv.weight, network.conv.bias)
    rectified = raw.clamp_min(0).mean(dim=(2, 3))
    torch.testing.assert_close(features[0], raw.mean(dim=(2, 3)))  # read before the in-place ReLU changed it
    torch.testing.assert_close(features[1], rectified)
    torch.testing.assert_close(features[2], rectified @ network.head.weight.T + network.head.bias)
    torch.testing.assert_close(logits, network(images))


def test_order_follows_the_layers_asked_for(images):
    network = tiny()
    _, forward = extract_features(network, images, LAYERS)
    _, backward = extract_features(network, images, LAYERS[::-1])
    for one, other in zip(forward, backward[::-1], strict=True):
        assert torch.equal(one, other)


def test_each_image_has_its_own_features(images):
    network = tiny()
    rows = torch.tensor([2, 0, 3, 1])
    _, features = extract_features(network, images, LAYERS)
    _, permuted = extract_features(network, images[rows], LAYERS)
    for one, other in zip(features, permuted, strict=True):
        torch.testing.assert_close(one[rows], other)


@pytest.mark.parametrize(
    ("activation", "channels", "expected"),
    [
        (torch.arange(8.0).reshape(1, 2, 2, 2), 1, [[1.5, 5.5]]),
        (torch.arange(8.0).reshape(1, 2, 2, 2), 3, [[3.0, 4.0]]),
        (torch.arange(6.0).reshape(1, 3, 2), 2, [[2.0, 3.0]]),
        (torch.arange(6.0).reshape(1, 3, 2), 1, [[0.5, 2.5, 4.5]]),
        (torch.tensor([[1.0, 2.0]]), 1, [[1.0, 2.0]]),
        (torch.tensor([[[60000.0], [60000.0]]], dtype=torch.float16), 2, [[60000.0]]),
    ],
    ids=["map", "channels last", "tokens", "channels of tokens first", "vector", "half"],
)
def test_pooling_keeps_the_channels(activation, channels, expected):
    pooled = pool_activation(activation, "layer", channels=channels)
    assert pooled.dtype == torch.float32
    assert pooled.tolist() == [[pytest.approx(value, rel=1e-3) for value in row] for row in expected]


def test_gradients_reach_the_images_and_parameters_keep_none(images):
    network = tiny().requires_grad_(False)
    images = images.requires_grad_()
    _, features = extract_features(network, images, ["relu"])
    (gradient,) = torch.autograd.grad(features[0].sum(), images)
    assert gradient.abs().sum() > 0
    with torch.no_grad():
        assert not extract_features(network, images, ["relu"])[1][0].requires_grad


def test_names_are_relative_to_the_network_inside_a_target():
    params = NetworkParams(name="small", preprocessing=PreprocessingParams(mean=(0.5,), std=(0.25,)))
    target = build_target(params, class_names=[str(label) for label in range(10)], image_shape=(1, 28, 28)).freeze()
    assert isinstance(target, TargetNetwork)
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    logits, features = extract_features(target, images, target.spec.layers)
    inner_logits, inner = extract_features(target.network, (images - 0.5) / 0.25, target.spec.layers)
    assert [tuple(one.shape) for one in features] == [(2, 32), (2, 64), (2, 64), (2, 200), (2, 200)]
    torch.testing.assert_close(logits, inner_logits)
    for one, other in zip(features, inner, strict=True):
        torch.testing.assert_close(one, other)


def test_hooks_are_gone_after_success_and_after_errors(images):
    network = tiny()
    extract_features(network, images, LAYERS)
    assert hooks(network) == 0
    with capture_activations(network, LAYERS, channels=dict.fromkeys(LAYERS, 1)):
        assert hooks(network) == len(LAYERS)
    with pytest.raises(RuntimeError):
        extract_features(network, images.reshape(-1), LAYERS)
    assert hooks(network) == 0
    with pytest.raises(ConfigurationError):
        extract_features(network, images, ["pair"])
    assert hooks(network) == 0


def test_the_mode_of_the_network_is_kept(images):
    network = tiny().train()
    extract_features(network, images, LAYERS)
    assert network.training


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["relu", "covn"], "no module 'covn'; expected of .*conv"),
        (["relu", "relu"], "each once, got"),
        ([], "at least one module name"),
        (["pair"], "expected a tensor of 2, 3 or 4 dimensions from layer 'pair', got a tuple"),
        (["relu", "unused"], r"\['unused'\] take no part"),
    ],
    ids=["missing", "twice", "none", "tuple", "unused"],
)
def test_unusable_layers_are_named(images, layers, message):
    with pytest.raises(ConfigurationError, match=message):
        extract_features(tiny(), images, layers)


def test_a_layer_run_twice_is_an_error(images):
    with pytest.raises(ConfigurationError, match="layer 'relu' is run more than once"):
        extract_features(tiny(relu_calls=2), images, ["relu"])


def test_a_network_without_logits_is_an_error(images):
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    with pytest.raises(ConfigurationError, match=r"expected logits of shape \(N, C\).*\(4, 2, 4, 4\)"):
        extract_features(network, images, ["0"])
