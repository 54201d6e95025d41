"""Activations of three well-separated classes at two layers, and of images between them."""

from __future__ import annotations

import pytest
import torch

from adv_detect.algorithms.detectors import Activations
from adv_detect.algorithms.representatives import Representatives

WIDTHS = (4, 6)
CLASSES = 3
HEAD = torch.randn(CLASSES, WIDTHS[-1], generator=torch.Generator().manual_seed(7))
CENTRES = [
    torch.eye(CLASSES, WIDTHS[0]) * 8,
    torch.linalg.pinv(HEAD) @ (torch.eye(CLASSES) * 9),
]


def made(classes: torch.Tensor, *, seed: int, noise: float = 1.0, towards: torch.Tensor | None = None) -> Activations:
    """Images of some classes; with ``towards``, the last layer is that of other classes: attacked."""
    generator = torch.Generator().manual_seed(seed)
    last = CENTRES[1].T[classes if towards is None else towards]
    if towards is not None:
        last = 0.6 * last + 0.4 * CENTRES[1].T[classes]
    shift = 0.0 if towards is None else 1.5
    features = [
        CENTRES[0][classes] + shift + noise * torch.randn(len(classes), WIDTHS[0], generator=generator),
        last + noise * 0.4 * torch.randn(len(classes), WIDTHS[1], generator=generator),
    ]
    logits = features[1] @ HEAD.T + 0.5
    views = {"a": logits * 0.9, "b": logits.roll(1, dims=1) * 0.1 + logits}
    groups = () if towards is None else ("bim/targeted",) * len(classes)
    return Activations(logits, dict(zip(("early", "last"), features, strict=True)), views, groups=groups)


@pytest.fixture(scope="session")
def clean() -> Activations:
    found = made(torch.arange(150) % CLASSES, seed=0)
    assert (found.logits.argmax(dim=1) == torch.arange(150) % CLASSES).float().mean() > 0.95
    return found


@pytest.fixture(scope="session")
def held() -> Activations:
    return made(torch.arange(60) % CLASSES, seed=1)


@pytest.fixture(scope="session")
def attacked() -> Activations:
    classes = torch.arange(90) % CLASSES
    return made(classes, seed=2, towards=(classes + 1) % CLASSES)


@pytest.fixture(scope="session")
def representatives(clean) -> Representatives:
    labels = clean.logits.argmax(dim=1)
    parts = list(clean.features.values())
    means = [torch.stack([part[labels == one].mean(dim=0) for one in range(CLASSES)]) for part in parts]
    centred = [part - mean[labels] for part, mean in zip(parts, means, strict=True)]
    covariances = [(part.T @ part / len(part)).double() for part in centred]
    whitening = [torch.linalg.inv(torch.linalg.cholesky(one)).float() for one in covariances]
    return Representatives(
        layers=("early", "last"),
        class_names=("x", "y", "z"),
        medoids=means,
        centroids=means,
        whitening=[one.T for one in whitening],
        medoid_source_ids=[["", "", ""]] * 2,
    )
