"""A network is tried on two images before any work."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adv_detect.errors import ConfigurationError
from adv_detect.networks.target import build_target
from adv_detect.params import NetworkParams

CLASSES = ("a", "b", "c")


class Plain(nn.Module):
    """Three logits of the mean of quarters of the image."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(4, num_classes)

    def forward(self, images):
        return self.head(self.pool(images).flatten(1))


class NoGrad(Plain):
    @torch.no_grad()
    def forward(self, images):
        return super().forward(images)


class ByNumPy(Plain):
    def forward(self, images):
        return torch.from_numpy(super().forward(images).detach().numpy())


class Random(Plain):
    def forward(self, images):
        return super().forward(images) + torch.randn(len(images), 3)


class BatchDependent(Plain):
    def forward(self, images):
        logits = super().forward(images)
        return logits - logits.mean(dim=0)


class NoNumber(Plain):
    def forward(self, images):
        return super().forward(images) * float("nan")


def build(kind: type[nn.Module]):
    params = NetworkParams(name=f"{__name__}.{kind.__name__}", layers=("pool",))
    return build_target(params, class_names=CLASSES, image_shape=(1, 8, 8))


@pytest.mark.parametrize("kind", [NoGrad, ByNumPy])
def test_a_network_without_gradients_is_refused(kind):
    with pytest.raises(ConfigurationError, match=r"by a gradient, which attacks follow, got none .*no_grad"):
        build(kind)


def test_logits_that_are_no_numbers_are_refused():
    with pytest.raises(ConfigurationError, match=r"expected finite logits .*got NaN or infinity"):
        build(NoNumber)


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Random, "other logits each time"), (BatchDependent, "other logits beside other images"), (Plain, None)],
)
def test_answers_that_depend_on_more_than_the_image_are_said(kind, words, caplog):
    target = build(kind)

    assert target.training
    messages = [record.getMessage() for record in caplog.records if "gives" in record.getMessage()]
    assert [words in message for message in messages] == ([True] if words else [])
