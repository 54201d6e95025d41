"""A tiny trained network and the images that it classifies correctly."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

CLASSES = 4
SIDE = 10


@dataclass(frozen=True)
class TinyTask:
    """Frozen network, correctly classified images in [0, 1], labels and targets."""

    network: nn.Module
    images: Tensor
    labels: Tensor
    targets: Tensor
    bounds: tuple[float, float] = (0.0, 1.0)

    def first(self, count: int) -> TinyTask:
        return TinyTask(self.network, self.images[:count], self.labels[:count], self.targets[:count])

    def aim(self, criterion: str) -> Tensor | None:
        return self.targets if criterion == "targeted" else None


def _draw(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    templates = nn.functional.interpolate(torch.rand(CLASSES, 1, 4, 4, generator=generator), SIDE, mode="bilinear")
    generator.manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    noise = 0.15 * torch.randn(count, 1, SIDE, SIDE, generator=generator)
    return (templates[labels] + noise).clamp(0, 1), labels


@pytest.fixture(scope="session")
def tiny_task() -> TinyTask:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, CLASSES)
        )
    images, labels = _draw(256, seed=1)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    network.zero_grad()
    network.eval().requires_grad_(False)
    images, labels = _draw(60, seed=2)
    with torch.no_grad():
        right = network(images).argmax(1) == labels
    images, labels = images[right][:40], labels[right][:40]
    assert len(images) == 40
    targets = (labels + 1 + torch.arange(40) % (CLASSES - 1)) % CLASSES
    return TinyTask(network, images, labels, targets)
