"""A trial of a network on two images: logits, gradients, and whether an answer is an answer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adv_detect.errors import ConfigurationError

if TYPE_CHECKING:
    from adv_detect.networks.spec import NetworkSpec
    from adv_detect.networks.target import TargetNetwork

LOGGER = logging.getLogger(__name__)
SEED = 0
TOLERANCE = 1e-3
"""Share of the largest logit by which the logits of one image may differ between two passes."""


def try_network(target: TargetNetwork) -> None:
    """Classify two images of noise, so that a network that does not suit the data fails before any work.

    Args:
        target: The network; its mode and parameters stay as they are.

    Raises:
        ConfigurationError: It does not take such images, gives another number of logits than there are classes, logits
            that are not finite, or logits that pass no gradient to the images, which attacks follow.
    """
    spec, training = target.spec, target.training
    low, high = spec.bounds
    noise = torch.rand(2, *spec.image_shape, generator=torch.Generator().manual_seed(SEED))
    images = (low + noise * (high - low)).requires_grad_(True)
    try:
        logits, gradient = _passes(target.eval(), images, spec)
        with torch.no_grad():
            again, alone = target(images), target(images[:1])
    finally:
        target.train(training)
    if gradient is None:
        raise ConfigurationError(
            "network.name: expected logits that depend on the images by a gradient, which attacks follow, got none "
            f"from {spec.name!r}; leave out torch.no_grad, inference_mode, detach and NumPy in its forward pass"
        )
    if not bool(torch.isfinite(logits).all()):
        raise ConfigurationError(
            f"network.name: expected finite logits of images within bounds {list(spec.bounds)}, got NaN or infinity "
            f"from {spec.name!r}; check its weights and network.preprocessing"
        )
    _warn_of_moods(spec, logits.detach(), again, alone)


def _passes(network: nn.Module, images: Tensor, spec: NetworkSpec) -> tuple[Tensor, Tensor | None]:
    try:
        with torch.enable_grad():
            logits: Tensor = network(images)
        _check_shape(logits, spec)
        gradient = None
        if logits.requires_grad:
            (gradient,) = torch.autograd.grad(logits.sum(), images, allow_unused=True)
    except ConfigurationError:
        raise
    except Exception as exc:  # any error: the forward pass of a network is arbitrary code
        raise ConfigurationError(
            f"network.name: {spec.name!r} with arguments {spec.arguments} does not take images of shape "
            f"{spec.image_shape}: {exc}"
        ) from exc
    return logits, gradient


def _check_shape(logits: Tensor, spec: NetworkSpec) -> None:
    shape = tuple(logits.shape)
    if shape != (2, spec.num_classes):
        raise ConfigurationError(
            f"network.name: expected {spec.num_classes} logits per image, one per class of the data, "
            f"{spec.name!r} gives shape {shape} for two images; check network.arguments"
        )


def _warn_of_moods(spec: NetworkSpec, logits: Tensor, again: Tensor, alone: Tensor) -> None:
    """Say where an image gets other logits the second time, or beside another image."""
    limit = TOLERANCE * max(float(logits.abs().max()), TOLERANCE)
    if float((again - logits).abs().max()) > limit:
        LOGGER.warning(
            "network: %r gives one image other logits each time, so successes and scores are those of one draw",
            spec.name,
        )
    elif float((alone - logits[:1]).abs().max()) > limit:
        LOGGER.warning("network: %r gives an image other logits beside other images in its batch", spec.name)
