from __future__ import annotations

import pytest
import torch
from torch import nn

from adv_detect.errors import ConfigurationError
from adv_detect.networks import build_network, default_layers


@pytest.mark.parametrize("path", ["torchvision.models.resnet18", "timm.models.resnet18"])
def test_constructors_by_dotted_path(path):
    with torch.device("meta"):
        network = build_network(path, num_classes=7)
    assert network.get_submodule("fc").out_features == 7
    assert "layer4" in dict(network.named_modules())


def test_class_count_goes_only_to_constructors_that_take_it():
    network = build_network("torch.nn.Linear", num_classes=9, in_features=2, out_features=3)
    assert network.out_features == 3


def test_class_count_of_none_keeps_the_default():
    assert build_network("small")(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smal", r"network\.name: expected one of \[.*mobilefacenet, senet50, small, strided, wide\], got 'smal'"),
        (
            "no_such_package.models.net",
            r"network\.name: cannot import module 'no_such_package\.models'.*senet50, small",
        ),
        (
            "torchvision.models.resnet1",
            r"has no 'resnet1': expected one of \[.*resnet18.*got 'torchvision\.models\.resnet1'",
        ),
        (".small", r"network\.name: cannot import module ''"),
        ("torch.nn.modules", r"expected a dotted path .* is a module"),
        ("builtins.dict", r"expected a constructor of a torch\.nn\.Module, 'builtins\.dict' returned dict"),
    ],
)
def test_unusable_names_are_errors(name, message):
    with pytest.raises(ConfigurationError, match=message):
        build_network(name)


def test_unknown_arguments_are_errors_that_list_the_valid_ones():
    with pytest.raises(
        ConfigurationError, match=r"network\.arguments of 'wide': expected one of \[.*widen\], got 'width'"
    ):
        build_network("wide", width=3)


def test_arguments_that_the_constructor_refuses_are_errors():
    with pytest.raises(ConfigurationError, match=r"'torchvision\.models\.resnet18' cannot be built with .*'colour': 1"):
        build_network("torchvision.models.resnet18", colour=1)


def test_default_layers_need_a_registered_name():
    with pytest.raises(ConfigurationError, match="set layers to a list of module names"):
        default_layers("torchvision.models.resnet18")
    with pytest.raises(ConfigurationError, match=r"network\.name: expected one of .*got 'tiny'"):
        default_layers("tiny")


@pytest.mark.parametrize("name", ["small", "strided", "wide", "senet50", "mobilefacenet"])
def test_default_layers_exist_once_each(name):
    with torch.device("meta"):
        network = build_network(name)
    layers = default_layers(name)
    assert len(set(layers)) == len(layers)
    assert all(isinstance(network.get_submodule(layer), nn.Module) for layer in layers)
