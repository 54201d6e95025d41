"""Deterministic weights and a way to read layers that does not use the package's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn


def _convolution(generator: torch.Generator, *shape: int) -> Tensor:
    fan_in = math.prod(shape[1:])
    return torch.randn(shape, generator=generator) * math.sqrt(2.0 / fan_in)


def _norm(generator: torch.Generator, name: str, width: int) -> dict[str, Tensor]:
    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(width, generator=generator)

    return {
        f"{name}.weight": uniform(0.5, 1.5),
        f"{name}.bias": uniform(-0.2, 0.2),
        f"{name}.running_mean": uniform(-0.2, 0.2),
        f"{name}.running_var": uniform(0.5, 1.5),
    }


@pytest.fixture(scope="session")
def draw_convolution() -> Callable[..., Tensor]:
    """(generator, *shape) -> a kernel that keeps activations of ordinary size."""
    return _convolution


@pytest.fixture(scope="session")
def draw_norm() -> Callable[..., dict[str, Tensor]]:
    """(generator, name, width) -> tensors of a batch normalisation."""
    return _norm


@pytest.fixture(scope="session")
def read_layers() -> Callable[[nn.Module, Tensor, Sequence[str]], tuple[Tensor, list[Tensor]]]:
    """(network, images, layers) -> logits and the raw output of each layer, in evaluation mode."""

    def keep(_module: nn.Module, _inputs: object, output: Tensor, *, outputs: dict[str, Tensor], name: str) -> None:
        outputs[name] = output.clone()

    def read(network: nn.Module, images: Tensor, layers: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        outputs: dict[str, Tensor] = {}
        modules = dict(network.eval().named_modules())
        handles = [modules[name].register_forward_hook(partial(keep, outputs=outputs, name=name)) for name in layers]
        with torch.no_grad():
            logits = network(images)
        for handle in handles:
            handle.remove()
        return logits, [outputs[name] for name in layers]

    return read


@pytest.fixture(scope="session")
def assert_all_close() -> Callable[[Sequence[Tensor], Sequence[Tensor]], None]:
    """Compare lists of tensors, each to 1e-4 of its largest value; all must vary."""

    def check(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert one.shape == other.shape
            assert other.std() > 0
            assert (one - other).abs().max() <= 1e-4 * other.abs().max()

    return check


@pytest.fixture
def small_reference_state() -> Mapping[str, Tensor]:
    """Weights of the small network under the published names."""
    generator = torch.Generator().manual_seed(3)
    shapes = {
        "feature_extractor.conv1": (32, 1, 3, 3),
        "feature_extractor.conv2": (32, 32, 3, 3),
        "feature_extractor.conv3": (64, 32, 3, 3),
        "feature_extractor.conv4": (64, 64, 3, 3),
        "classifier.fc1": (200, 1024),
        "classifier.fc2": (200, 200),
        "classifier.fc3": (10, 200),
    }
    state = {f"{name}.weight": _convolution(generator, *shape) for name, shape in shapes.items()}
    biases = {f"{name}.bias": torch.randn(shape[0], generator=generator) * 0.1 for name, shape in shapes.items()}
    return state | biases
