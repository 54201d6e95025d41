"""Training of a network under attack."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from adv_detect.algorithms.finite import finite_rows
from adv_detect.algorithms.head import HeadParams, fit_linear_head
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.images import ImageSet, load_images
from adv_detect.networks.outputs import HALF
from adv_detect.networks.target import TargetNetwork
from adv_detect.networks.weights import head_name
from adv_detect.params import TargetTrainingParams
from adv_detect.progress import Advance, show_progress, track

LOGGER = logging.getLogger(__name__)
SGD_MOMENTUM = 0.9
MAX_SHIFT = 2
CROP_PADDING = 4


@dataclass(frozen=True)
class FitSettings:
    """Seed, device and whether progress is shown."""

    seed: int
    device: torch.device
    progress: bool


def fit_target(
    target: TargetNetwork, images: ImageSet, *, params: TargetTrainingParams, settings: FitSettings
) -> list[dict[str, float]]:
    """Train a network in place of its checkpoint.

    Images stream through a loader, so memory holds one batch. Batches are drawn from a seeded generator and
    dropout from a forked global one: the same seed gives the same weights on the same machine.

    Args:
        target: The network to train; its weights change.
        images: Training images.
        params: Epochs, optimiser, schedule and augmentation.
        settings: Seed, device, progress.

    Returns:
        One row per epoch: ``epoch``, ``loss``, ``accuracy`` on the (augmented) training batches, ``learning_rate``.
    """
    devices = [settings.device] if settings.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(settings.seed)
        _place(target, settings.device).train()
        loader = _loader(images, target.spec.bounds, params, settings)
        optimizer = _optimizer(target, params)
        schedule = _schedule(optimizer, params, len(loader))
        history = []
        batches = params.epochs * len(loader)
        with show_progress("target_training", batches, unit="batches", shown=settings.progress) as advance:
            for epoch in range(params.epochs):
                row = _epoch(
                    target, loader, optimizer, schedule,
                    params=params, device=settings.device, epoch=epoch, advance=advance,
                )  # fmt: skip
                loss, accuracy = row["loss"], row["accuracy"]
                LOGGER.info("target_training: epoch %d, loss %.4f, accuracy %.4f", epoch + 1, loss, accuracy)
                if not math.isfinite(loss):
                    raise DataError(
                        f"target_training: expected a finite loss, got {loss} in epoch {epoch + 1}; lower "
                        f"learning_rate ({params.learning_rate:g}), or check network.preprocessing and bounds"
                    )
                history.append(row)
    target.freeze()
    return history


def fit_head(
    target: TargetNetwork, images: ImageSet, *, params: TargetTrainingParams, batch_size: int, settings: FitSettings
) -> list[dict[str, float]]:
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


def _place(target: TargetNetwork, device: torch.device) -> TargetNetwork:
    """Move a network; convolutions train fastest with the channels last."""
    return target.to(device).to(memory_format=torch.channels_last)


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    """Batches of images in the pixel range of the network, by lists of indices."""

    def __init__(self, images: ImageSet, bounds: tuple[float, float]) -> None:
        self.images = images
        self.bounds = bounds

    def __getitem__(self, indices: Any) -> tuple[Tensor, Tensor]:
        return load_images(self.images, indices, self.bounds), self.images.labels[torch.as_tensor(indices)]


def _loader(
    images: ImageSet, bounds: tuple[float, float], params: TargetTrainingParams, settings: FitSettings
) -> DataLoader[Any]:
    order = RandomSampler(range(len(images)), generator=torch.Generator().manual_seed(settings.seed))
    whole = len(images) > params.batch_size
    return DataLoader(
        _Batches(images, bounds),
        sampler=BatchSampler(order, batch_size=params.batch_size, drop_last=whole),
        batch_size=None,
        num_workers=params.workers,
        persistent_workers=params.workers > 0,
        pin_memory=settings.device.type == "cuda",
    )


def _optimizer(target: nn.Module, params: TargetTrainingParams) -> torch.optim.Optimizer:
    trainable = [parameter for parameter in target.parameters() if parameter.requires_grad]
    if params.optimizer == "sgd":
        return torch.optim.SGD(
            trainable, params.learning_rate, momentum=SGD_MOMENTUM, nesterov=True, weight_decay=params.weight_decay
        )
    return torch.optim.AdamW(trainable, params.learning_rate, weight_decay=params.weight_decay)


def _schedule(
    optimizer: torch.optim.Optimizer, params: TargetTrainingParams, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    total = params.epochs * steps_per_epoch
    if params.schedule == "onecycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=params.learning_rate, total_steps=total)
    if params.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _epoch(
    target: TargetNetwork,
    loader: DataLoader[Any],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    params: TargetTrainingParams,
    device: torch.device,
    epoch: int,
    advance: Advance,
) -> dict[str, float]:
    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), device=device)
    seen = 0
    for batch, labels in loader:
        images, classes = augment(batch.to(device), params.augmentation), labels.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=params.autocast):
            logits = target(images)
        loss = functional.cross_entropy(logits.float(), classes)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        loss_sum += loss.detach() * len(classes)
        correct += (logits.detach().argmax(dim=1) == classes).sum()
        seen += len(classes)
        advance()
    return {
        "epoch": float(epoch + 1),
        "loss": float(loss_sum) / seen,
        "accuracy": float(correct) / seen,
        "learning_rate": float(schedule.get_last_lr()[0]),
    }


def augment(images: Tensor, how: str) -> Tensor:
    """Vary training images at random; draws come from the global generator.

    Args:
        images: Shape ``(N, channels, H, W)``.
        how: ``none``, ``shift`` (up to 2 pixels each way, edges repeated) or ``crop_flip`` (padded by 4 with zeros
            per batch offset, mirrored half of the time, as usual for CIFAR-10).

    Returns:
        Images of the same shape.
    """
    if how == "none":
        return images
    padding = MAX_SHIFT if how == "shift" else CROP_PADDING
    mode = "replicate" if how == "shift" else "constant"
    padded = functional.pad(images, (padding,) * 4, mode=mode)
    moved = _random_windows(padded, images.shape[-2:], 2 * padding + 1)
    if how == "shift":
        return moved
    mirror = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(mirror, moved.flip(-1), moved)


def _random_windows(padded: Tensor, size: torch.Size, offsets: int) -> Tensor:
    """Cut one window of ``size`` per image at a random offset."""
    height, width = size
    device = padded.device
    top = torch.randint(offsets, (len(padded), 1), device=device) + torch.arange(height, device=device)
    left = torch.randint(offsets, (len(padded), 1), device=device) + torch.arange(width, device=device)
    rows = torch.arange(len(padded), device=device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[rows, top[:, :, None], left[:, None, :]].permute(0, 3, 1, 2).contiguous()
