"""Run an adaptive attack in batches and let the model judge what came out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from adv_detect.algorithms.attacks.adaptive.geometry import l2_norms, linf_norms
from adv_detect.algorithms.attacks.adaptive.task import (
    NOT_COUNTED,
    AdaptiveResult,
    AdaptiveTask,
    Candidates,
    EndToEndModel,
    class_margin,
    concatenate,
)
from adv_detect.algorithms.finite import finite_rows, replace_rows
from adv_detect.errors import AttackError, ConfigurationError

RunnableAttack = Callable[[EndToEndModel, AdaptiveTask], Candidates]

DEFAULT_BATCH_SIZE = 256
BUDGET_TOLERANCE = 1e-5
"""Relative excess over epsilon that float32 rounding can cause."""


def run_adaptive_attack(
    attack: RunnableAttack, model: EndToEndModel, task: AdaptiveTask, *, batch_size: int = DEFAULT_BATCH_SIZE
) -> AdaptiveResult:
    """Attack all images of a task.

    Args:
        attack: From :func:`build_adaptive_attack`.
        model: Images to class and detector logits; frozen and in evaluation mode.
        task: What to attack. The outcome of an image does not depend on the batch it lies in.
        batch_size: Images attacked at once.

    Returns:
        The outcome per image, judged by a fresh forward pass over the final images.

    Raises:
        ConfigurationError: There are no images, the model is in training mode, or the task lacks what the attack needs.
        AttackError: The attack left the bounds or its budget.
    """
    _check_ready(model, task)
    parts = []
    for rows in torch.split(torch.arange(len(task), device=task.images.device), batch_size):
        with torch.enable_grad():
            parts.append(attack(model, task.select(rows)))
    return judge(model, concatenate(parts), task, batch_size=batch_size)


def judge(
    model: EndToEndModel, candidates: Candidates, task: AdaptiveTask, *, batch_size: int = DEFAULT_BATCH_SIZE
) -> AdaptiveResult:
    """Let a model decide what an attack achieved.

    Args:
        model: The attacked model, or for a transfer attack the victim.
        candidates: What the attack returned.
        task: The rows attacked; its threshold belongs to ``model``.
        batch_size: Images judged at once.

    Returns:
        The outcome per image. Where a pixel or a logit is NaN or infinite the attack has failed, and the clean image
        takes the place of the attacked one.

    Raises:
        AttackError: An image out of bounds.
    """
    images = candidates.images.detach()
    _check_shape(images, task)
    broken = ~finite_rows(images)
    images = replace_rows(images, task.images, broken)
    _check_bounds(images, task)
    class_logits, detector_logits = _logits(model, images, batch_size)
    unsound = ~finite_rows(class_logits, detector_logits)
    if bool(unsound.any()):
        broken, images = broken | unsound, replace_rows(images, task.images, unsound)
        class_logits[unsound], detector_logits[unsound] = _logits(model, images[unsound], batch_size)
    fooled = (class_margin(class_logits, task) > 0) & ~broken
    counted = candidates.first_success
    return AdaptiveResult(
        images=images,
        fooled=fooled,
        evaded=fooled & (detector_logits <= task.threshold),
        detector_score=detector_logits,
        l2=l2_norms(images - task.images),
        linf=linf_norms(images - task.images),
        gradient_evaluations=candidates.gradient_evaluations,
        zero_gradient_share=candidates.zero_gradient_share,
        first_success=torch.full_like(task.labels, NOT_COUNTED) if counted is None else counted,
        non_finite=broken,
    )


@torch.no_grad()
def _logits(model: EndToEndModel, images: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Class logits ``(N, C)`` and detector logits ``(N,)``."""
    parts = [model(batch) for batch in torch.split(images, batch_size)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def check_budget(result: AdaptiveResult, task: AdaptiveTask) -> None:
    """Check that an attack under a budget kept it.

    Args:
        result: Outcome of the attack.
        task: Gives norm and epsilon; without an epsilon there is nothing to check.

    Raises:
        AttackError: A perturbation is larger than epsilon.
    """
    if task.epsilon is None or not len(task):
        return
    largest = float((result.l2 if task.norm == "l2" else result.linf).amax())
    if largest > task.epsilon * (1 + BUDGET_TOLERANCE):
        raise AttackError(f"expected perturbations within {task.norm} {task.epsilon:g}, got {largest:g}")


def _check_shape(images: Tensor, task: AdaptiveTask) -> None:
    if images.shape != task.images.shape:
        raise AttackError(f"expected images of shape {tuple(task.images.shape)}, got {tuple(images.shape)}")


def _check_bounds(images: Tensor, task: AdaptiveTask) -> None:
    low, high = task.bounds
    if len(images) and (images.amin() < low or images.amax() > high):
        raise AttackError(f"expected pixels within {list(task.bounds)}; the attack returned others")


def _check_ready(model: EndToEndModel, task: AdaptiveTask) -> None:
    if not len(task):
        raise ConfigurationError("task: expected at least one image, got none")
    if isinstance(model, nn.Module) and model.training:
        raise ConfigurationError("model: expected evaluation mode, got training mode; call model.eval() first")
