"""The fast form of a frozen network: the same outputs and gradients, none of its training parts."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch import nn
from torch.nn import functional

from adv_detect.algorithms.features import extract_features
from adv_detect.networks import frozen
from adv_detect.networks.frozen import FrozenNorm, FrozenPReLU, GreyConvolution, fast_form, working_form
from adv_detect.networks.spec import NetworkSpec
from adv_detect.networks.target import TargetNetwork, build_target, target_digest
from adv_detect.params import NetworkParams, PreprocessingParams

CPU = torch.device("cpu")
NETWORKS = {
    "small": (1, 28, 28),
    "wide": (3, 32, 32),
    "senet50": (3, 64, 64),
    "mobilefacenet": (3, 112, 96),
    "torchvision.models.resnet18": (3, 64, 64),
}


def make_target(name, *, layers=None):
    """A frozen network of two images' worth, with statistics that are not those of a fresh normalisation."""
    arguments = {"depth": 10, "widen": 1} if name == "wide" else {}
    params = NetworkParams(name=name, arguments=arguments, layers=layers)
    target = build_target(params, class_names="abc", image_shape=NETWORKS[name], seed=3)
    generator = torch.Generator().manual_seed(4)
    for module in target.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-0.3, 0.3, generator=generator)
        if isinstance(module, nn.PReLU):
            module.weight.data.uniform_(0.1, 0.4, generator=generator)
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(0.0, 0.1, generator=generator)
    return target.freeze()


def gradient(network, images):
    leaf = images.clone().requires_grad_()
    logits = network(leaf)
    (found,) = torch.autograd.grad((logits * torch.arange(1, 4)).sum(), leaf)
    return logits.detach(), found


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format], ids=["last", "first"])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_features_and_gradients_stay(name, memory_format):
    layers = ("relu", "layer1", "layer2.0", "avgpool") if "." in name else None
    target = make_target(name, layers=layers).double()
    images = torch.rand(2, *NETWORKS[name], generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    fast = fast_form(target, memory_format=memory_format)

    torch.testing.assert_close(gradient(fast, images), gradient(target, images), rtol=1e-7, atol=1e-9)
    with torch.no_grad():
        mine, theirs = (extract_features(one, images, target.spec.layers) for one in (fast, target))
    torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("name", "left"), [("mobilefacenet", 0), ("senet50", 0), ("wide", 4)])
def test_what_training_needs_is_gone(name, left):
    modules = list(fast_form(make_target(name)).modules())

    assert not any(isinstance(one, nn.BatchNorm2d | nn.PReLU) for one in modules)
    assert (sum(isinstance(one, FrozenNorm) for one in modules) > 0) == (left > 0)


def test_the_stored_network_is_left_as_it_is():
    target = make_target("mobilefacenet")
    before = target_digest(target)

    fast = working_form(target, CPU)

    assert fast is not target
    assert fast.spec == target.spec
    assert target_digest(target) == before
    assert any(isinstance(one, nn.PReLU) for one in target.modules())


def test_a_convolution_that_is_read_keeps_its_own_output():
    target = make_target("torchvision.models.resnet18", layers=("conv1", "layer1"))

    fast = fast_form(target)

    assert isinstance(fast.network.bn1, FrozenNorm)
    assert isinstance(fast.network.layer1[0].bn1, nn.Identity)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        mine, theirs = (extract_features(one, images, ("conv1", "layer1")) for one in (fast, target))
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_the_form_is_made_once_and_again_for_other_weights():
    target = make_target("mobilefacenet")
    first = working_form(target, CPU)

    assert working_form(target, CPU) is first
    target.load_state_dict({name: value * 0.9 for name, value in copy.deepcopy(target.state_dict()).items()})
    again = working_form(target, CPU)

    assert again is not first
    images = torch.rand(2, 3, 112, 96, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(again(images), target(images), rtol=1e-3, atol=1e-4)


def test_a_network_in_training_is_used_as_it_is():
    target = make_target("mobilefacenet")

    assert working_form(target.train(), CPU) is target
    assert working_form(target.eval().requires_grad_(True), CPU) is target


class Branching(nn.Module):
    """Cannot be traced: the way depends on the pixels."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1)

    def forward(self, images):
        images = images if bool(images.mean() > 0.1) else -images
        return self.head(self.norm(self.conv(images))).flatten(1)


def wrap(network):
    spec = NetworkSpec(
        name="own", num_classes=3, layers=("norm",), bounds=(0, 1), class_names=tuple("abc"), image_shape=(1, 8, 8)
    )
    return TargetNetwork(spec, network).freeze()


def test_what_cannot_be_traced_is_not_folded_but_works():
    target = wrap(Branching())
    target.network.norm.running_mean.fill_(0.3)

    fast = working_form(target, CPU)

    assert isinstance(fast.network.norm, FrozenNorm)
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(8))
    torch.testing.assert_close(fast(images), target(images), rtol=1e-4, atol=1e-5)


def test_a_form_that_differs_is_not_used(monkeypatch, caplog):
    target = make_target("small")
    monkeypatch.setattr(frozen, "fast_form", lambda _, **__: wrap_scaled(target))

    with caplog.at_level(logging.WARNING):
        assert working_form(target, CPU) is target
    assert "is off by" in caplog.text


def wrap_scaled(target):
    other = copy.deepcopy(target)
    for parameter in other.parameters():
        parameter.data.mul_(1.2).add_(0.1)
    return other


class Viewing(nn.Module):
    """Takes it for granted that the rows of a channel lie together."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(108, 3)

    def forward(self, images):
        return self.head(self.norm(self.conv(images)).view(len(images), -1))


def test_a_network_that_needs_the_usual_layout_gets_it(caplog):
    target = wrap(Viewing())

    with caplog.at_level(logging.WARNING):
        fast = working_form(target, CPU)

    assert fast is not target
    assert isinstance(fast.network.norm, FrozenNorm)
    assert not caplog.text
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(8))
    torch.testing.assert_close(fast(images), target(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2}, {"padding": 2}, {"dilation": 2, "bias": False}, {"stride": (2, 1), "padding": (0, 1)}],
    ids=str,
)
def test_a_grey_convolution_is_that_of_torch(options):
    convolution = nn.Conv2d(1, 4, (3, 5), **options).double().requires_grad_(False)
    images = torch.rand(3, 1, 12, 11, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    mine, theirs = (images.clone().requires_grad_() for _ in range(2))

    found, wanted = GreyConvolution(convolution)(mine), convolution(theirs)

    torch.testing.assert_close(found, wanted)
    assert found.is_contiguous(memory_format=torch.channels_last)
    weights = torch.rand(wanted.shape, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
    (found * weights).sum().backward()
    (wanted * weights).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("options", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}], ids=str)
def test_a_grey_convolution_with_other_padding_stays(options):
    network = nn.Sequential(nn.Conv2d(1, 4, 3, **options), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    target = wrap(network)
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(13))

    fast = working_form(target, CPU)

    assert type(fast.network[0]) is nn.Conv2d
    torch.testing.assert_close(fast(images), target(images), rtol=1e-4, atol=1e-5)


def test_preprocessing_stays_in_front():
    params = NetworkParams(name="mobilefacenet", preprocessing=PreprocessingParams(scale=2.0, mean=(0.5,) * 3))
    target = build_target(params, class_names="abc", image_shape=(3, 112, 96)).freeze()
    images = torch.rand(2, 3, 112, 96, generator=torch.Generator().manual_seed(9))

    torch.testing.assert_close(working_form(target, CPU)(images), target(images), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 4), (2, 3, 4, 5)])
@pytest.mark.parametrize("slopes", [1, 3])
def test_the_gradient_of_prelu_is_that_of_torch(shape, slopes):
    activation = nn.PReLU(slopes)
    activation.weight.data = torch.linspace(0.1, 0.5, slopes)
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(10), dtype=torch.float64)
    mine, theirs = (inputs.clone().requires_grad_() for _ in range(2))

    FrozenPReLU(activation.double())(mine).square().sum().backward()
    functional.prelu(theirs, activation.weight).square().sum().backward()

    torch.testing.assert_close(mine.grad, theirs.grad)


def in_place(width):
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))
    return wrap(nn.Sequential(nn.Conv2d(1, width, 5), nn.ReLU(inplace=True), *head))


@pytest.mark.parametrize("width", [1, 8])
def test_an_activation_in_place_may_follow_a_grey_convolution(width, caplog):
    target = in_place(width)
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(14))

    with caplog.at_level(logging.WARNING):
        fast = working_form(target, CPU)

    assert isinstance(fast.network[0], GreyConvolution)
    assert not caplog.text
    torch.testing.assert_close(gradient(fast, images), gradient(target, images), rtol=1e-4, atol=1e-5)


class WrongGradient(GreyConvolution):
    def forward(self, inputs):
        right = super().forward(inputs)
        return right.detach() + 0.5 * (right - right.detach())


class NoGradient(GreyConvolution):
    def forward(self, inputs):
        return super().forward(inputs).relu_().sub_(1.0).add_(1.0)


@pytest.mark.parametrize("broken", [WrongGradient, NoGradient])
def test_a_rewrite_with_other_gradients_is_left_out_alone(broken, monkeypatch, caplog):
    target = in_place(8)
    monkeypatch.setattr(frozen, "GreyConvolution", broken)
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(14))

    with caplog.at_level(logging.WARNING):
        fast = working_form(target, CPU)

    assert "its gradient by" in caplog.text
    assert fast is not target
    assert type(fast.network[0]) is nn.Conv2d
    torch.testing.assert_close(gradient(fast, images), gradient(target, images), rtol=1e-4, atol=1e-5)
