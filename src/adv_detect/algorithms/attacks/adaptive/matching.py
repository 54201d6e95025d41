"""Move an image's whole trajectory onto that of a clean image of another class."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from adv_detect.algorithms.attacks.adaptive.combined import combined_direction, guide_gap
from adv_detect.algorithms.attacks.adaptive.descent import DescentArguments, descend
from adv_detect.algorithms.attacks.adaptive.gradients import Evaluation, evaluate
from adv_detect.algorithms.attacks.adaptive.task import (
    AdaptiveTask,
    Candidates,
    Describe,
    DescribingModel,
    EndToEndModel,
)
from adv_detect.errors import ConfigurationError

SMALLEST_DISTANCE = 1e-12
"""Keeps the relative distance finite where a layer already matches its guide."""


class MatchingArguments(DescentArguments):
    """Arguments of the matching attack: those of projected gradient descent."""


def matching(model: EndToEndModel, task: AdaptiveTask, arguments: MatchingArguments) -> Candidates:
    """Descend the squared distance of all layers to the guide's, each layer relative to where it started.

    Args:
        model: Images to class and detector logits; the guide's model is used in its place.
        task: What to attack; its guide holds clean trajectories ``(N, L, K)`` of the target class, or, untargeted,
            of another class than the label (:func:`nearest_guides`).
        arguments: Steps and restarts.

    Returns:
        Per image the misclassified iterate with the lowest detector logit.
    """
    weighted = _weigh_layers(model, task)
    return descend(model, weighted, arguments, combined_direction(_summed_gap), use_guide=True)


def nearest_guides(
    own: Tensor, candidates: Tensor, candidate_classes: Tensor, *, labels: Tensor, targets: Tensor | None
) -> Tensor:
    """Choose for each image the nearest clean trajectory (or feature vector) of an admissible class.

    Args:
        own: Of the attacked images, ``(N, ...)``.
        candidates: Of clean images, ``(M, ...)``.
        candidate_classes: Class of each candidate, int64, ``(M,)``.
        labels: True classes of the attacked images, int64, ``(N,)``.
        targets: Their target classes; None admits every class but the label.

    Returns:
        The chosen candidates, ``(N, ...)``.

    Raises:
        ConfigurationError: An image has no candidate of an admissible class.
    """
    if targets is None:
        admissible = candidate_classes[None, :] != labels[:, None]
    else:
        admissible = candidate_classes[None, :] == targets[:, None]
    missing = int((~admissible.any(dim=1)).sum())
    if missing:
        raise ConfigurationError(
            f"guide: {missing} of {len(own)} images have no clean candidate of an admissible class; "
            "give more candidates"
        )
    distances = torch.cdist(own.flatten(1), candidates.flatten(1)).masked_fill(~admissible, float("inf"))
    return candidates[distances.argmin(dim=1)]


def described_by(model: EndToEndModel, describe: Describe) -> DescribingModel:
    """Join a model and a separate description into a describing model, at the price of a second forward pass.

    Args:
        model: Images to class and detector logits.
        describe: Images to trajectories ``(N, L, K)`` or features ``(N, D)``.
    """

    def both(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        class_logits, detector_logits = model(images)
        return class_logits, detector_logits, describe(images)

    return both


def _weigh_layers(model: EndToEndModel, task: AdaptiveTask) -> AdaptiveTask:
    """Weigh each layer by the inverse of its squared distance to the guide at the clean image."""
    with torch.no_grad():
        gap = guide_gap(evaluate(model, task.images, task, use_guide=True), task.guide)
    distance = gap.square().sum(dim=-1, keepdim=True)
    assert task.guide is not None  # guide_gap has seen it
    return replace(task, guide=replace(task.guide, weights=1.0 / distance.clamp_min(SMALLEST_DISTANCE)))


def _summed_gap(evaluation: Evaluation, batch: AdaptiveTask) -> Tensor:
    gap = guide_gap(evaluation, batch.guide).square()
    weights = None if batch.guide is None else batch.guide.weights
    return (gap if weights is None else gap * weights).flatten(1).sum(dim=1)
