"""The epoch loop of all networks that are trained here: batches, optimiser, schedule, resuming after each epoch."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from adv_detect.algorithms.augmentation import augment
from adv_detect.errors import DataError
from adv_detect.images import ImageSet, load_images
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import NetworkFitParams
from adv_detect.progress import Advance, show_progress

LOGGER = logging.getLogger(__name__)
SGD_MOMENTUM = 0.9

Row = dict[str, float]
"""Figures of one epoch by name."""


@dataclass(frozen=True)
class FitSettings:
    """Seed, device and whether progress is shown."""

    seed: int
    device: torch.device
    progress: bool


class Checkpoint(Protocol):
    """Keeps the state of an unfinished training; one that was made from other ingredients is not given back."""

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and facts of the last :meth:`write`; None where there is none."""

    def write(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Replace what is kept, whole or not at all."""

    def part(self, name: str) -> Checkpoint:
        """Return the checkpoint of one of several trainings that have one result."""


class Task:
    """Loss that a network learns from, and state beside its weights; by default there is none."""

    @abstractmethod
    def loss(self, target: TargetNetwork, images: Tensor, classes: Tensor, *, done: float) -> tuple[Tensor, Tensor]:
        """Return the loss of a batch of (augmented) images and the logits that its accuracy is counted from.

        Args:
            target: The network, in training mode.
            images: Shape ``(N, channels, H, W)``, on the device.
            classes: Their classes ``(N,)``.
            done: Share of the training that is done, in [0, 1).
        """

    def after_step(self, target: TargetNetwork) -> None:
        """Follow a step of the optimiser."""

    def after_epoch(self, target: TargetNetwork, *, done: float) -> Row:
        """Return further figures of an epoch, after which the share ``done`` of the training is done."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Return the tensors with which a resumed training goes on."""
        return {}

    def resume(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""


@dataclass
class _Training:
    """All that changes while a network learns."""

    target: TargetNetwork
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    order: torch.Generator
    task: Task
    device: torch.device

    def write(self, checkpoint: Checkpoint, history: list[Row]) -> None:
        """Keep everything that the next epoch depends on."""
        optimizer = self.optimizer.state_dict()
        tensors = {f"network.{name}": value for name, value in self.target.network.state_dict().items()}
        tensors |= {
            f"optimizer.{number}.{name}": value
            for number, values in optimizer["state"].items()
            for name, value in values.items()
        }
        tensors |= {f"task.{name}": value for name, value in self.task.state().items()}
        tensors |= {"order": self.order.get_state(), "draws": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors["draws_cuda"] = torch.cuda.get_rng_state(self.device)
        facts = {"groups": optimizer["param_groups"], "schedule": self.schedule.state_dict()}
        checkpoint.write(tensors, facts | {"history": history})

    def read(self, checkpoint: Checkpoint | None) -> list[Row]:
        """Go on where an earlier run ended; returns the epochs that are done."""
        found = checkpoint.read() if checkpoint is not None else None
        if found is None:
            return []
        tensors, facts = found
        self.target.network.load_state_dict(_below(tensors, "network."))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(tensors, "optimizer.").items():
            number, _, kind = name.partition(".")
            moments.setdefault(int(number), {})[kind] = value
        self.optimizer.load_state_dict({"state": moments, "param_groups": facts["groups"]})
        self.schedule.load_state_dict(facts["schedule"])
        self.task.resume(_below(tensors, "task."))
        self.order.set_state(tensors["order"])
        torch.set_rng_state(tensors["draws"])
        if "draws_cuda" in tensors:
            torch.cuda.set_rng_state(tensors["draws_cuda"], self.device)
        history: list[Row] = facts["history"]
        return history


def fit_epochs(
    target: TargetNetwork,
    images: ImageSet,
    task: Task,
    *,
    title: str,
    params: NetworkFitParams,
    settings: FitSettings,
    checkpoint: Checkpoint | None = None,
) -> list[Row]:
    """Train a network.

    Images stream through a loader, so memory holds one batch. Batches are drawn from a seeded generator and all else
    from a forked global one: the same seed gives the same weights on the same machine, in one go or resumed.

    Args:
        target: The network to train; its weights change.
        images: Training images.
        task: What is learned.
        title: Pipeline, in messages and in the progress.
        params: Epochs, optimiser, schedule and augmentation.
        settings: Seed, device, progress.
        checkpoint: Where each epoch is kept, and found again; None keeps nothing.

    Returns:
        One row per epoch: ``epoch``, ``loss``, ``accuracy`` on the (augmented) training batches, ``learning_rate``, and
        what the task adds.

    Raises:
        DataError: The loss is not finite.
    """
    devices = [settings.device] if settings.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(settings.seed)
        target.to(settings.device).to(memory_format=torch.channels_last).train()
        order = torch.Generator().manual_seed(settings.seed)
        loader = _loader(images, target.spec.bounds, params, settings, order)
        optimizer = _optimizer(target, params)
        training = _Training(target, optimizer, _schedule(optimizer, params, len(loader)), order, task, settings.device)
        history = training.read(checkpoint)
        if history:
            LOGGER.info("%s: goes on after epoch %d", title, len(history))
        total, done = params.epochs * len(loader), len(history) * len(loader)
        with show_progress(title, total, unit="batches", done=done, shown=settings.progress) as advance:
            for epoch in range(len(history), params.epochs):
                row = _epoch(training, loader, params, epoch, advance)
                _check_finite(title, row, params)
                history.append(row)
                if checkpoint is not None:
                    training.write(checkpoint, history)
    target.freeze()
    return history


def _check_finite(title: str, row: Row, params: NetworkFitParams) -> None:
    loss, epoch = row["loss"], int(row["epoch"])
    LOGGER.info("%s: epoch %d, loss %.4f, accuracy %.4f", title, epoch, loss, row["accuracy"])
    if not math.isfinite(loss):
        raise DataError(
            f"{title}: expected a finite loss, got {loss} in epoch {epoch}; lower learning_rate "
            f"({params.learning_rate:g}), or check network.preprocessing and bounds"
        )


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    """Batches of images in the pixel range of the network, by lists of indices."""

    def __init__(self, images: ImageSet, bounds: tuple[float, float]) -> None:
        self.images = images
        self.bounds = bounds

    def __getitem__(self, indices: Any) -> tuple[Tensor, Tensor]:
        return load_images(self.images, indices, self.bounds), self.images.labels[torch.as_tensor(indices)]


def _loader(
    images: ImageSet,
    bounds: tuple[float, float],
    params: NetworkFitParams,
    settings: FitSettings,
    order: torch.Generator,
) -> DataLoader[Any]:
    sampler = RandomSampler(range(len(images)), generator=order)
    whole = len(images) > params.batch_size
    # Persistent workers draw a seed once, in a resumed run once more: not from the generator of the augmentation.
    apart = torch.Generator().manual_seed(settings.seed) if params.workers else None
    return DataLoader(
        _Batches(images, bounds),
        sampler=BatchSampler(sampler, batch_size=params.batch_size, drop_last=whole),
        batch_size=None,
        generator=apart,
        num_workers=params.workers,
        persistent_workers=params.workers > 0,
        pin_memory=settings.device.type == "cuda",
    )


def _optimizer(target: nn.Module, params: NetworkFitParams) -> torch.optim.Optimizer:
    trainable = [parameter for parameter in target.parameters() if parameter.requires_grad]
    if params.optimizer == "sgd":
        return torch.optim.SGD(
            trainable, params.learning_rate, momentum=SGD_MOMENTUM, nesterov=True, weight_decay=params.weight_decay
        )
    return torch.optim.AdamW(trainable, params.learning_rate, weight_decay=params.weight_decay)


def _schedule(
    optimizer: torch.optim.Optimizer, params: NetworkFitParams, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    total = params.epochs * steps_per_epoch
    if params.schedule == "onecycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=params.learning_rate, total_steps=total)
    if params.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _epoch(training: _Training, loader: DataLoader[Any], params: NetworkFitParams, epoch: int, advance: Advance) -> Row:
    target, device, task = training.target, training.device, training.task
    loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
    seen, total = 0, params.epochs * len(loader)
    for number, (batch, labels) in enumerate(loader, start=epoch * len(loader)):
        images, classes = augment(batch.to(device), params.augmentation), labels.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=params.autocast):
            loss, logits = task.loss(target, images, classes, done=number / total)
        training.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        training.optimizer.step()
        training.schedule.step()
        task.after_step(target)
        loss_sum += loss.detach() * len(classes)
        correct += (logits.detach().argmax(dim=1) == classes).sum()
        seen += len(classes)
        advance()
    figures = {
        "epoch": float(epoch + 1),
        "loss": float(loss_sum) / seen,
        "accuracy": float(correct) / seen,
        "learning_rate": float(training.schedule.get_last_lr()[0]),
    }
    return figures | task.after_epoch(target, done=(epoch + 1) / params.epochs)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
