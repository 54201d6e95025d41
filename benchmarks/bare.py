"""A gradient of the network alone: what no attack can do without."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.libraries import Task, own_form
from benchmarks.measure import Settings, seconds

BATCH_SIZES = (16, 32, 64, 128, 256, 512)
GPU_BATCH_SIZES = (256, 1024, 2048, 4096)
LARGE_IMAGE = 10_000
LARGE_SIZES, QUICK_SIZES = 3, 2
PROBES = 3


def best_gradient(task: Task, settings: Settings) -> tuple[Callable[[], Tensor], int]:
    """One forward and backward pass at the batch size that makes most images a second, and that size."""
    large = task.images[0].numel() > LARGE_IMAGE
    few = QUICK_SIZES if settings.quick else LARGE_SIZES if large else None
    sizes = (GPU_BATCH_SIZES if settings.device.type == "cuda" else BATCH_SIZES)[:few]
    works = {size: gradient(task, size) for size in sizes}
    found = {}
    for size, work in works.items():
        work()
        found[size] = min(seconds(work, settings.device) for _ in range(settings.size(PROBES, 1))) / size
    best = min(found, key=found.__getitem__)
    return works[best], best


def gradient(task: Task, size: int) -> Callable[[], Tensor]:
    """One forward and backward pass of so many of the task's images."""
    copies = math.ceil(size / len(task.images))
    images = task.images.repeat(copies, 1, 1, 1)[:size]
    labels = task.labels.repeat(copies)[:size]
    network = own_form(task.network, images.device)

    def work() -> Tensor:
        leaf = images.clone().requires_grad_(True)
        loss = nn.functional.cross_entropy(network(leaf), labels, reduction="sum")
        return torch.autograd.grad(loss, leaf)[0]

    return work
