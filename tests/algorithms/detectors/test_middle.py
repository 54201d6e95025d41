"""The middle of clean images: quantiles against NumPy, by layer, under the named class and under others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.algorithms.detectors.multiview.test_description import activations, representatives
from torch import nn

from adv_detect.algorithms.attacks.adaptive import AdaptiveTask, build_adaptive_attack, run_adaptive_attack
from adv_detect.algorithms.detectors import score_activations
from adv_detect.algorithms.detectors.end_to_end import DetectionModel, network_activations
from adv_detect.algorithms.detectors.middle import MiddleOfClean
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError


def distances(one, classes: torch.Tensor) -> np.ndarray:
    """Whitened distances to the centroids of some classes, layer by layer."""
    given = representatives()
    return np.stack(
        [
            np.linalg.norm((part.numpy() - centroids[classes].numpy()) @ whitening.numpy(), axis=1)
            for part, centroids, whitening in zip(one.features.values(), given.centroids, given.whitening, strict=True)
        ],
        axis=1,
    )


@pytest.mark.parametrize("coverage", [0.95, 0.5])
def test_inside_are_those_between_the_quantiles_of_every_layer(coverage):
    clean, images = activations(200), activations(40, seed=1)
    middle = MiddleOfClean(representatives(), coverage=coverage)
    middle.fit(clean, None, seed=0)

    known = distances(clean, clean.logits.argmax(dim=1))
    low, high = np.quantile(known, [(1 - coverage) / 2, (1 + coverage) / 2], axis=0)
    measured = distances(images, images.logits.argmax(dim=1))
    inside = ((measured >= low) & (measured <= high)).all(axis=1)

    assert 0 < inside.sum() < len(images)
    assert ((score_activations(middle, images) <= 0).numpy() == inside).all()
    shares = ((known >= low) & (known <= high)).mean(axis=0)
    np.testing.assert_allclose(shares, coverage, atol=0.01)


def test_one_half_width_beyond_an_edge_is_one():
    clean = activations(100)
    middle = MiddleOfClean(representatives())
    middle.fit(clean, None, seed=0)
    centroid = representatives().centroids
    far = [float(high + (high - low) / 2) for low, high in zip(middle.low, middle.high, strict=True)]
    one = activations(1)
    one.features["a"][:] = centroid[0][one.logits.argmax()] + torch.tensor([[far[0], 0.0]])
    one.features["b"][:] = centroid[1][one.logits.argmax()] + torch.tensor([[(middle.low + middle.high)[1] / 2 / 2, 0]])

    assert float(middle(one)) == pytest.approx(1.0, abs=1e-4)


def test_under_the_name_of_another_class_its_centroid_counts_and_layers_are_parts():
    clean, images = activations(100), activations(12, seed=3)
    middle = MiddleOfClean(representatives())
    middle.fit(clean, None, seed=0)
    scores, aims = middle(images), torch.arange(12) % 4

    parts = middle.score_parts(images, aims, scores=scores)
    named = middle.score_as(images, images.logits.argmax(dim=1), scores=scores)

    half, mid = ((middle.high - middle.low) / 2).numpy(), ((middle.high + middle.low) / 2).numpy()
    np.testing.assert_allclose(parts.numpy(), np.abs(distances(images, aims) - mid) / half - 1, rtol=1e-4, atol=1e-5)
    assert torch.equal(middle.score_as(images, aims, scores=scores), parts.amax(dim=1))
    assert torch.equal(named, scores)


def test_a_share_outside_0_and_1_is_refused():
    with pytest.raises(ConfigurationError, match="coverage: expected a share above 0 and below 1, got 1"):
        MiddleOfClean(representatives(), coverage=1.0)


class Planes(nn.Module):
    """Two linear layers on images of two pixels; the class is the side of the diagonal from corner to corner."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.a.weight.copy_(torch.eye(2))
            self.b.weight.copy_(torch.tensor([[1.0, 0.5], [-0.5, 1.0]]))
        self.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.b(self.a(images.flatten(1)))
        total = features @ torch.linalg.inv(self.b.weight).T @ torch.ones(2)
        return torch.stack([1 - total, total - 1], dim=1) * 10


def test_an_attack_finds_the_middle_of_another_class_within_a_budget_that_reaches_it():
    generator, network = torch.Generator().manual_seed(0), Planes()
    classes = torch.arange(60) % 2
    images = (0.25 + 0.5 * classes[:, None] + 0.05 * torch.randn(60, 2, generator=generator)).reshape(60, 1, 1, 2)
    clean = network_activations(network, images, ("a", "b"))
    centroids = [torch.stack([part[classes == one].mean(dim=0) for one in (0, 1)]) for part in clean.features.values()]
    given = Representatives(("a", "b"), ("x", "y"), centroids, centroids, [torch.eye(2)] * 2, [[""] * 2] * 2)
    middle = MiddleOfClean(given)
    middle.fit(clean, None, seed=0)
    model = DetectionModel(network, middle.requires_grad_(False), ("a", "b")).eval()

    def matched(epsilon: float) -> torch.Tensor:
        attack = build_adaptive_attack("multi_target", {"steps": 60, "restarts": 2, "targets": "all"})
        task = AdaptiveTask(
            images=images[:8], labels=classes[:8], targets=None, threshold=0.0, bounds=(0.0, 1.0), norm="linf",
            epsilon=epsilon, seed=0, indices=torch.arange(8),
        )  # fmt: skip
        result = run_adaptive_attack(attack, model, task, batch_size=8)
        inside = score_activations(middle, network_activations(network, result.images, ("a", "b"))) <= 0
        found = result.fooled & (result.detector_score <= 0)
        assert torch.equal(found, inside & result.fooled)
        return found

    assert matched(0.55).all()
    assert not matched(0.2).any()
