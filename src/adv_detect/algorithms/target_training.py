"""Training of a network under attack."""

from __future__ import annotations

import logging
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from adv_detect.algorithms.finite import finite_rows
from adv_detect.algorithms.fitting import Checkpoint, FitSettings, Row, Task, fit_epochs
from adv_detect.algorithms.head import HeadParams, fit_linear_head
from adv_detect.errors import ConfigurationError
from adv_detect.images import ImageSet, load_images
from adv_detect.networks.outputs import HALF
from adv_detect.networks.target import TargetNetwork
from adv_detect.networks.weights import head_name
from adv_detect.params import TargetTrainingParams
from adv_detect.progress import track

LOGGER = logging.getLogger(__name__)


class _Classification(Task):
    """Cross-entropy on the images as they are."""

    def loss(self, target: TargetNetwork, images: Tensor, classes: Tensor, *, done: float) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy, and the logits."""
        logits = target(images)
        return functional.cross_entropy(logits.float(), classes), logits


def fit_target(
    target: TargetNetwork,
    images: ImageSet,
    *,
    params: TargetTrainingParams,
    settings: FitSettings,
    checkpoint: Checkpoint | None = None,
) -> list[Row]:
    """Train a network in place of its checkpoint.

    Args:
        target: The network to train; its weights change.
        images: Training images.
        params: Epochs, optimiser, schedule and augmentation.
        settings: Seed, device, progress.
        checkpoint: Where each epoch is kept, and found again; None keeps nothing.

    Returns:
        As from :func:`adv_detect.algorithms.fitting.fit_epochs`.
    """
    return fit_epochs(
        target,
        images,
        _Classification(),
        title="target_training",
        params=params,
        settings=settings,
        checkpoint=checkpoint,
    )


def fit_head(
    target: TargetNetwork, images: ImageSet, *, params: TargetTrainingParams, batch_size: int, settings: FitSettings
) -> list[Row]:
    """Fit the linear head of a network on cached embeddings; the rest of the network stays as it is.

    Args:
        target: The network; the weights of its head change.
        images: Training images, read once.
        params: ``weight_decay`` is the penalty of the head.
        batch_size: Images a forward pass.
        settings: Seed, device, progress.

    Returns:
        One row: ``epoch`` 1, ``accuracy`` on the training images.
    """
    target.freeze().to(settings.device)
    head = target.network.get_submodule(_head_of(target))
    embeddings = _embed(target, head, images, batch_size=batch_size, settings=settings)
    fitted = fit_linear_head(
        embeddings,
        images.labels,
        len(images.class_names),
        params=HeadParams(weight_decay=params.weight_decay, dropout=target.spec.arguments.get("dropout", 0.0)),
        seed=settings.seed,
    )
    with torch.no_grad():
        for parameter, value in ((head.weight, fitted.weight), (head.bias, fitted.bias)):
            cast(Tensor, parameter).copy_(value)
    LOGGER.info("target_training: head on %d embeddings, accuracy %.4f", len(embeddings), fitted.train_accuracy)
    return [{"epoch": 1.0, "accuracy": fitted.train_accuracy}]


def _head_of(target: TargetNetwork) -> str:
    name = head_name(target.network)
    if name is None:
        raise ConfigurationError(
            f"target_training.head_only: {target.spec.name} has no linear layer that gives its logits; set it to false"
        )
    return name


@torch.no_grad()
def _embed(
    target: TargetNetwork, head: nn.Module, images: ImageSet, *, batch_size: int, settings: FitSettings
) -> Tensor:
    """Compute the features that the head reads, for all images, shape ``(N, D)``, on the CPU."""
    parts: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: parts.append(_at_least_single(inputs[0].detach().cpu())))
    try:
        starts = range(0, len(images), batch_size)
        for start in track(starts, "embeddings for the head", unit="batches", shown=settings.progress):
            rows = range(start, min(start + batch_size, len(images)))
            target(load_images(images, rows, target.spec.bounds).to(settings.device))
    finally:
        handle.remove()
    return torch.cat(parts)


def _at_least_single(values: Tensor) -> Tensor:
    return values.float() if values.dtype in HALF else values


@torch.no_grad()
def measure_accuracy(
    target: TargetNetwork, images: ImageSet, *, batch_size: int, device: torch.device, progress: bool = False
) -> float:
    """Share of images that the network classifies as labelled.

    Args:
        target: The network, in evaluation mode.
        images: Labelled images.
        batch_size: Images a forward pass.
        device: Where to run.
        progress: Whether progress is shown.

    Returns:
        Accuracy in [0, 1].
    """
    target.to(device)
    correct = 0
    starts = range(0, len(images), batch_size)
    for start in track(starts, "accuracy of the network", unit="batches", shown=progress):
        rows = range(start, min(start + batch_size, len(images)))
        batch = load_images(images, rows, target.spec.bounds).to(device)
        logits = target(batch).cpu()
        right = logits.argmax(dim=1) == images.labels[rows.start : rows.stop]
        correct += int((right & finite_rows(logits)).sum())  # NaN would pass for the first class
    return correct / len(images)
