"""A tiny trained classifier with a trained detector, and tasks on it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from adv_detect.algorithms.attacks.adaptive import AdaptiveTask, Guide

CLASSES = 3
SIDE = 6
THRESHOLD = 0.0


class TinyModel(nn.Module):
    """One convolution, one hidden layer, and a detector that reads both."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 6, 3)
        self.hidden = nn.Linear(6 * 16, 12)
        self.head = nn.Linear(12, CLASSES)
        self.detector = nn.Sequential(nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 1))

    def layers(self, images: Tensor) -> Tensor:
        """Two layers of width 12, ``(N, 2, 12)``."""
        maps = self.convolution(images).relu()
        pooled = functional.adaptive_avg_pool2d(maps, (2, 1)).flatten(1)
        return torch.stack([pooled, functional.softplus(self.hidden(maps.flatten(1)))], dim=1)

    def describe(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layers = self.layers(images)
        return self.head(layers[:, 1]), self.detector(layers.flatten(1)).squeeze(1), layers

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, scores, _ = self.describe(images)
        return logits, scores


def make_images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy copies of one random pattern per class, in [0, 1]."""
    patterns = torch.rand(CLASSES, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    noise = torch.randn(count, 1, SIDE, SIDE, generator=generator) * 0.12
    return (patterns[labels] * 0.6 + 0.2 + noise).clamp(0, 1), labels


def train_model(seed: int) -> TinyModel:
    """Train the classifier, then the detector on clean images against sign-gradient adversarials."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TinyModel()
    images, labels = make_images(120, seed=seed)
    _fit(
        [*model.convolution.parameters(), *model.hidden.parameters(), *model.head.parameters()],
        lambda: functional.cross_entropy(model(images)[0], labels),
        steps=60,
    )
    leaf = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(functional.cross_entropy(model(leaf)[0], labels, reduction="sum"), leaf)
    attacked = [(images + epsilon * slope.sign()).clamp(0, 1) for epsilon in (0.1, 0.2)]
    described = model.layers(torch.cat([images, *attacked])).detach().flatten(1)
    labels = torch.cat([torch.zeros(120), torch.ones(240)])
    _fit(
        list(model.detector.parameters()),
        lambda: functional.binary_cross_entropy_with_logits(model.detector(described).squeeze(1), labels),
        steps=100,
    )
    clean_scores = model(make_images(200, seed=seed + 50)[0])[1]
    model.detector[-1].bias.data -= clean_scores.quantile(0.95) - THRESHOLD
    return model.eval().requires_grad_(False)


def _fit(parameters, loss, *, steps: int) -> None:
    """Adam by hand: importing an optimiser costs more than this training."""
    first = [torch.zeros_like(parameter) for parameter in parameters]
    second = [torch.zeros_like(parameter) for parameter in parameters]
    for step in range(1, steps + 1):
        slopes = torch.autograd.grad(loss(), parameters)
        for parameter, slope, mean, square in zip(parameters, slopes, first, second, strict=True):
            mean.lerp_(slope, 0.1)
            square.lerp_(slope**2, 0.001)
            parameter.data -= 0.02 * mean / (1 - 0.9**step) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)


@pytest.fixture(scope="session")
def model() -> TinyModel:
    return train_model(seed=0)


@pytest.fixture(scope="session")
def substitute() -> TinyModel:
    return train_model(seed=7)


@pytest.fixture(scope="session")
def make_task(model):
    """A task on images that are classified right and pass; with guides of the next class."""
    images, labels = make_images(60, seed=1)
    logits, scores = model(images)
    usable = (logits.argmax(1) == labels) & (scores <= THRESHOLD)
    images, labels = images[usable][:24], labels[usable][:24]
    assert len(images) == 24
    clean, classes = make_images(30, seed=2)

    def make(*, targeted: bool = False, guide: str | None = None, **changes) -> AdaptiveTask:
        targets = (labels + 1) % CLASSES
        aimed = {target: clean[classes == target][0] for target in range(CLASSES)}
        guides = None
        if guide == "images":
            guides = Guide(values=clean.expand(len(images), *clean.shape), describe=model.describe)
        elif guide is not None:
            layers = model.layers(torch.stack([aimed[int(target)] for target in targets]))
            values = layers if guide == "layers" else layers[:, -1]
            guides = Guide(values=values, describe=model.describe if guide == "layers" else _last_layer(model))
        arguments = {
            "images": images,
            "labels": labels,
            "threshold": THRESHOLD,
            "bounds": (0.0, 1.0),
            "norm": "linf",
            "epsilon": 0.1,
            "targets": targets if targeted else None,
            "guide": guides,
        }
        return AdaptiveTask(**(arguments | changes))

    return make


def _last_layer(model: TinyModel):
    def describe(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, scores, layers = model.describe(images)
        return logits, scores, layers[:, -1]

    return describe
