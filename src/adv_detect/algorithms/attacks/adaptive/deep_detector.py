"""Deep-features attack with the detector in its objective.

Source: Massoli et al. 2021, white-box attack on face recognition: the distance of the features to those of a guide
image plus 10 times the detector's binary cross entropy to "authentic", within a largest change per pixel.
The published form is solved by projected L-BFGS over a batch, where the original solves image by image by L-BFGS-B; the
correct form by projected gradient descent, which does not stop at the class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor

from adv_detect.algorithms.attacks.adaptive.combined import CombinedLoss, combined_direction, guide_gap
from adv_detect.algorithms.attacks.adaptive.descent import DescentArguments, descend
from adv_detect.algorithms.attacks.adaptive.geometry import l2_norms
from adv_detect.algorithms.attacks.adaptive.gradients import (
    Evaluation,
    Selection,
    detector_loss,
    evaluate,
    is_absent,
    raw_gradient,
)
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, Candidates, EndToEndModel, class_margin
from adv_detect.algorithms.attacks.deep_features import DeepFeaturesParams, solve
from adv_detect.algorithms.attacks.deep_features_objective import Evaluation as SolverEvaluation
from adv_detect.algorithms.attacks.deep_features_objective import pixel_radius
from adv_detect.algorithms.finite import replace_rows
from adv_detect.errors import ConfigurationError
from adv_detect.fields import PositiveNumber

REFERENCE_MAX_THRES = 10.0
REFERENCE_DETECTOR_WEIGHT = 10.0


class DeepDetectorArguments(DescentArguments):
    """Arguments of the deep-features attack on network and detector.

    Attributes:
        max_thres: Largest change of a pixel, in units of an 8-bit image (0 to 255); 10 in the paper.
        detector_weight: Weight of the detector's cross entropy; 10 in the paper.
        selection: ``reference`` stops as soon as the class is fooled, whatever the detector says; ``correct``
            goes on until both are fooled and aims at the task's threshold.
    """

    max_thres: PositiveNumber = REFERENCE_MAX_THRES
    detector_weight: float = Field(REFERENCE_DETECTOR_WEIGHT, ge=0)
    selection: Selection = "correct"


def deep_detector(model: EndToEndModel, task: AdaptiveTask, arguments: DeepDetectorArguments) -> Candidates:
    """Move features to a guide's while the detector is kept quiet.

    Args:
        model: Images to class and detector logits; the guide's model is used in its place. Where a nearest
            neighbour names the face, class logits are minus the distances to the class medoids.
        task: What to attack, under the Linf norm; its guide holds clean features ``(N, D)``. Its epsilon is
            replaced by ``max_thres``.
        arguments: Budget, weights, selection, steps.

    Returns:
        ``correct``: per image the misclassified iterate with the lowest detector logit; ``reference``: the first
        misclassified iterate.

    Raises:
        ConfigurationError: The norm is not Linf.
    """
    if task.norm != "linf":
        raise ConfigurationError(f"norm: deep_detector bounds the change per pixel, expected linf, got {task.norm!r}")
    bounded = replace(task, epsilon=pixel_radius(arguments.max_thres, task.bounds))
    if arguments.selection == "reference":
        return _published(bounded, arguments)
    return descend(model, bounded, arguments, combined_direction(_deep_loss(task, arguments)), use_guide=True)


def _published(task: AdaptiveTask, arguments: DeepDetectorArguments) -> Candidates:
    """Solve by L-BFGS and stop an image as soon as its class is fooled, whatever the detector says."""
    objective = _JointObjective(task, _deep_loss(task, arguments))
    judge = _ClassJudge(task, arguments.confidence)
    params = DeepFeaturesParams(max_thres=arguments.max_thres, iterations=arguments.steps, solver="lbfgs")
    solution = solve(objective, task.images, judge=judge, params=params, bounds=task.bounds)
    rows = torch.arange(len(task), device=task.images.device)
    with torch.no_grad():
        fooled = judge.fooled(objective.evaluate_classes(solution.images, rows), rows)
    return Candidates(
        images=replace_rows(solution.images, task.images, ~fooled),
        gradient_evaluations=solution.evaluations,
        zero_gradient_share=objective.zero.float() / solution.evaluations.clamp_min(1),
    )


class _JointObjective:
    """The summed loss for the batched solvers; what it describes are the class logits, for the judge."""

    def __init__(self, task: AdaptiveTask, loss: CombinedLoss) -> None:
        self._task, self._loss = task, loss
        self.zero = torch.zeros(len(task), dtype=torch.int64, device=task.images.device)

    def evaluate(self, images: Tensor, rows: Tensor) -> SolverEvaluation:
        """Compute loss and gradient of the images at ``rows``."""
        batch = self._task.select(rows)
        with torch.enable_grad():
            seen = evaluate(_unused, images, batch, use_guide=True)
            loss = self._loss(seen, batch)
            gradient = raw_gradient(loss, seen.images)
        self.zero[rows] += is_absent(gradient).long()
        return SolverEvaluation(loss.detach(), gradient, seen.class_logits.detach())

    def evaluate_classes(self, images: Tensor, rows: Tensor) -> Tensor:
        """Give the class logits ``(n, C)`` of the images at ``rows``."""
        return evaluate(_unused, images, self._task.select(rows), use_guide=True).class_logits


@dataclass(frozen=True)
class _ClassJudge:
    task: AdaptiveTask
    confidence: float

    def fooled(self, features: Tensor, rows: Tensor) -> Tensor:
        """Return whether class logits ``features`` are the attacker's, bool ``(n,)``."""
        return class_margin(features, self.task.select(rows)) > self.confidence


def _unused(images: Tensor) -> tuple[Tensor, Tensor]:
    raise AssertionError("the guide's model is asked instead")


def _deep_loss(task: AdaptiveTask, arguments: DeepDetectorArguments) -> CombinedLoss:
    def loss(evaluation: Evaluation, batch: AdaptiveTask) -> Tensor:
        distance = l2_norms(guide_gap(evaluation, batch.guide))
        suspicion = detector_loss(evaluation.detector_logits, task.threshold, arguments.selection)
        return distance + arguments.detector_weight * suspicion

    return loss
