"""Networks that give more than a tensor, and networks in other number formats."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from adv_detect.algorithms.features import extract_features
from adv_detect.errors import ConfigurationError
from adv_detect.networks.frozen import working_form
from adv_detect.networks.outputs import pick_logits
from adv_detect.networks.target import build_target
from adv_detect.params import NetworkParams


@dataclass
class Output:
    loss: None
    logits: Tensor


Pair = namedtuple("Pair", ["features", "logits"])
LOGITS, OTHER = torch.ones(2, 3), torch.zeros(2, 5)


class Wrapping(nn.Module):
    """Gives its logits in a container; its layers compute in the format asked for."""

    def __init__(self, form="tensor", dtype="float32", num_classes=3):
        super().__init__()
        self.form = form
        self.conv, self.relu = nn.Conv2d(1, 4, 3), nn.ReLU()
        self.head = nn.Linear(4, num_classes)
        self.to(getattr(torch, dtype))

    def forward(self, images):
        hidden = self.relu(self.conv(images)).mean(dim=(2, 3))
        logits = self.head(hidden)
        forms = {
            "tensor": logits,
            "dict": {"logits": logits},
            "unclear": {"first": hidden, "second": logits},
            "tuple": (logits, hidden),
            "object": Output(None, logits),
            "text": "logits",
        }
        return forms[self.form]


def make(**arguments):
    output = arguments.pop("output", None)
    params = NetworkParams(name=f"{__name__}.Wrapping", arguments=arguments, layers=("conv", "relu"), output=output)
    return build_target(params, class_names="abc", image_shape=(1, 8, 8)).freeze()


@pytest.mark.parametrize(
    ("outputs", "output"),
    [
        (LOGITS, None),
        ({"logits": LOGITS, "aux": OTHER}, None),
        ({"aux": OTHER, "out": LOGITS}, None),
        ({"anything": LOGITS}, None),
        ((LOGITS, OTHER), None),
        ([LOGITS], None),
        (Output(None, LOGITS), None),
        (Pair(OTHER, LOGITS), None),
        (({"logits": LOGITS}, OTHER), None),
        ({"a": OTHER, "b": LOGITS}, "b"),
        ({"a": OTHER, "b": LOGITS}, 1),
        ((OTHER, LOGITS), -1),
        (Pair(LOGITS, OTHER), "features"),
    ],
    ids=str,
)
def test_logits_are_found(outputs, output):
    assert pick_logits(outputs, output) is LOGITS


@pytest.mark.parametrize(
    ("outputs", "output", "message"),
    [
        ({"a": OTHER, "b": LOGITS}, None, r"cannot tell.*a dict of \{'a': \(2, 5\), 'b': \(2, 3\)\}"),
        (None, None, "cannot tell.*it gives a NoneType"),
        ({"a": OTHER}, "b", r"expected the name or index.*got 'b'; the network gives a dict of \{'a'"),
        ((OTHER,), 3, "expected the name or index.*got 3"),
    ],
)
def test_unclear_outputs_are_listed(outputs, output, message):
    with pytest.raises(ConfigurationError, match=message):
        pick_logits(outputs, output)


@pytest.mark.parametrize(
    ("form", "output"), [("dict", None), ("tuple", None), ("object", None), ("unclear", "second"), ("unclear", 1)]
)
def test_networks_with_containers_work(form, output):
    target, plain = make(form=form, output=output), make()
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(target(images), plain(images))
    logits, features = extract_features(working_form(target, torch.device("cpu")), images, target.spec.layers)
    torch.testing.assert_close(logits, plain(images))
    assert [tuple(one.shape) for one in features] == [(2, 4), (2, 4)]
    if output is None:
        torch.testing.assert_close(extract_features(target.network, images, ["conv"])[0], plain(images))


@pytest.mark.parametrize(
    ("form", "output", "message"),
    [
        ("unclear", None, r"network\.output: cannot tell.*'first': \(2, 4\), 'second': \(2, 3\)"),
        ("unclear", "first", r"expected 3 logits per image.*gives shape \(2, 4\)"),
        ("text", None, r"network\.output: cannot tell.*a str"),
        ("tuple", "logits", r"network\.output: expected the name or index of a tensor of logits, got 'logits'"),
    ],
)
def test_unclear_networks_are_refused_before_work(form, output, message):
    with pytest.raises(ConfigurationError, match=message):
        make(form=form, output=output)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_number_formats_give_float32_and_gradients(dtype):
    target, plain = make(dtype=dtype), make()
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for network in (target, working_form(target, torch.device("cpu")), target.network):
        logits, features = extract_features(network, images, ["conv", "relu"])
        (gradient,) = torch.autograd.grad(logits.sum(), images)
        assert {one.dtype for one in (logits, gradient, *features)} == {torch.float32}
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(logits, plain(images), rtol=0.05, atol=0.02)


def test_integer_images_are_taken():
    target = make()
    images = torch.randint(0, 2, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    wanted = extract_features(target, images.float(), ["relu"])
    for network in (target, target.network):
        torch.testing.assert_close(extract_features(network, images, ["relu"]), wanted)
