"""The budget around each clean image: steps, projection, random starts and distances."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, BudgetNorm
from adv_detect.algorithms.finite import per_row

Schedule = Literal["constant", "linear", "cosine"]

ROUNDING_GUARD = 1e-6
"""Share of the L2 budget left unused, so that float32 rounding cannot exceed it."""
TINY_NORM = 1e-30
"""Keeps the division by the norm of an all-zero gradient finite."""

# Odd constants that spread (seed, image, restart) over the seeds of the random starts.
_SEED_STRIDE = 1_000_003
_INDEX_STRIDE = 8_191
_SEED_LIMIT = 2**63 - 1


def l2_norms(perturbations: Tensor) -> Tensor:
    """Return the Euclidean norm of each row of ``(N, ...)``, shape ``(N,)``."""
    norms: Tensor = torch.linalg.vector_norm(perturbations.flatten(1), dim=1)
    return norms


def linf_norms(perturbations: Tensor) -> Tensor:
    """Return the largest absolute value of each row of ``(N, ...)``, shape ``(N,)``."""
    return perturbations.flatten(1).abs().amax(dim=1)


def unit_step(direction: Tensor, norm: BudgetNorm) -> Tensor:
    """Turn a direction into the steepest step of unit norm: its sign (Linf) or itself normalised (L2).

    Args:
        direction: Shape ``(N, ...)``; an all-zero row stays zero.
        norm: Norm in which the step has length 1.

    Returns:
        Steps, shape ``(N, ...)``.
    """
    if norm == "linf":
        return direction.sign()
    scaled = direction / per_row(linf_norms(direction).clamp_min(TINY_NORM), direction)
    return scaled / per_row(l2_norms(scaled).clamp_min(TINY_NORM), direction)


def project(images: Tensor, task: AdaptiveTask) -> Tensor:
    """Bring images back into the budget around their clean images and into the pixel bounds.

    Args:
        images: Shape ``(N, channels, H, W)``.
        task: Gives clean images, norm, epsilon and bounds.

    Returns:
        Images ``(N, channels, H, W)``.
    """
    low, high = task.bounds
    if task.norm == "linf":
        nearest = torch.maximum(torch.minimum(images, task.images + task.budget), task.images - task.budget)
        return nearest.clamp_(low, high)
    change = images - task.images
    limit = task.budget * (1 - ROUNDING_GUARD)
    shrink = (limit / l2_norms(change).clamp_min(TINY_NORM)).clamp_max(1.0)
    return (task.images + change * per_row(shrink, change)).clamp_(low, high)


def starting_points(task: AdaptiveTask, restart: int) -> Tensor:
    """Return where a run begins: the clean image first, then random points of the budget.

    The noise of an image depends on the seed, its index and the restart alone, not on its batch, and is drawn
    on the CPU, so it is the same on every device.

    Args:
        task: The images.
        restart: 0 for the first run.

    Returns:
        Images ``(N, channels, H, W)`` within budget and bounds.
    """
    if restart == 0 or not len(task):
        return task.images.clone()
    assert task.indices is not None  # numbered at construction
    noise = torch.stack([_noise(task, int(index), restart) for index in task.indices.tolist()])
    return project(task.images + noise.to(task.images), task)


def step_factor(step: int, steps: int, schedule: Schedule) -> float:
    """Return the step size at ``step`` of ``steps`` as a share of the first one, in (0, 1]."""
    progress = step / steps
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0


def image_seed(seed: int, index: int, restart: int) -> int:
    """Give the seed of what is drawn for one image: it hangs on no other image of the batch."""
    return (seed * _SEED_STRIDE + index * _INDEX_STRIDE + restart) % _SEED_LIMIT


def _noise(task: AdaptiveTask, index: int, restart: int) -> Tensor:
    generator = torch.Generator().manual_seed(image_seed(task.seed, index, restart))
    shape = task.images.shape[1:]
    if task.norm == "linf":
        return (torch.rand(shape, generator=generator) * 2 - 1) * task.budget
    gaussian = torch.randn(shape, generator=generator)
    length = torch.linalg.vector_norm(gaussian).clamp_min(TINY_NORM)
    scaled: Tensor = gaussian / length * task.budget
    return scaled
