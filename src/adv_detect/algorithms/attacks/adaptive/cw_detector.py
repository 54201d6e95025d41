"""Carlini-Wagner L2 with the detector in its objective.

Source: Carlini and Wagner, "Towards evaluating the robustness of neural networks", 2017, with the detector term of
Massoli et al. 2021: ``||delta||^2 + c * f(x') + 1000 * BCE(detector, authentic)``. Departure: an image whose own
loss stalls leaves the batch (the original stops when the batch's sum stalls).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import torch
from pydantic import Field
from torch import Tensor

from adv_detect.algorithms.attacks.adam import AdamState, Rows
from adv_detect.algorithms.attacks.adaptive.combined import combined_direction
from adv_detect.algorithms.attacks.adaptive.geometry import l2_norms
from adv_detect.algorithms.attacks.adaptive.gradients import (
    Evaluation,
    Selection,
    classifier_loss,
    detector_loss,
    evaluate,
)
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, Candidates, EndToEndModel
from adv_detect.algorithms.attacks.adaptive.tracker import NEVER, Tracker
from adv_detect.algorithms.attacks.tanh_search import INFINITY, ConstantBisection, TanhSpace
from adv_detect.errors import ConfigurationError
from adv_detect.fields import Block, PositiveNumber

REFERENCE_LEARNING_RATE = 5e-4
REFERENCE_STEPS = 1000
REFERENCE_SEARCH_STEPS = 10
REFERENCE_DETECTOR_WEIGHT = 1000.0
INITIAL_CONSTANT = 0.01
TANH_MARGIN = {"reference": 1.0 - 1e-6, "correct": 1.0 - 1e-3}
"""Clean pixels at the bounds are moved in by this factor, because tanh never reaches 1. The published one leaves pixels
that are exactly black or white so far out that a rate of 5e-4 does not bring them back within 1,000 steps."""
CLASS_SLACK, DETECTOR_SLACK = 1e-4, 1e-3
"""By how much (logits) the correct form must be beyond both thresholds, so that rounding does not undo a success."""
ABORT_CHECKS = 10
"""A run is divided into this many stretches; an image whose loss did not fall over one of them leaves."""
ABORT_IMPROVEMENT = 0.9999


class CwDetectorArguments(Block):
    """Arguments of Carlini-Wagner on network and detector.

    Attributes:
        steps: Adam steps per search step; 1,000 in the paper.
        binary_search_steps: Values of ``c`` tried per image; 10 in the paper.
        learning_rate: Of Adam, in tanh space; 5e-4 in the paper.
        initial_constant: First ``c``.
        detector_weight: Weight of the detector's cross entropy; 1,000 in the paper.
        confidence: Class margin (logits) at which the classifier's term is satisfied.
        abort_early: An image whose loss stalls leaves the batch until the next search step.
        selection: ``reference`` keeps the smallest misclassified image without looking at the detector;
            ``correct`` keeps the smallest that also passes and aims at the task's threshold. Either way an image
            that was fooled gets a smaller ``c`` next: it passed and shall become smaller, or it was caught and the
            detector needs more weight against the classifier.
    """

    steps: int = Field(REFERENCE_STEPS, ge=1)
    binary_search_steps: int = Field(REFERENCE_SEARCH_STEPS, ge=1)
    learning_rate: PositiveNumber = REFERENCE_LEARNING_RATE
    initial_constant: PositiveNumber = INITIAL_CONSTANT
    detector_weight: float = Field(REFERENCE_DETECTOR_WEIGHT, ge=0)
    confidence: float = Field(0.0, ge=0)
    abort_early: bool = True
    selection: Selection = "correct"


def cw_detector(model: EndToEndModel, task: AdaptiveTask, arguments: CwDetectorArguments) -> Candidates:
    """Search the smallest perturbation that fools the classifier while the detector is kept quiet.

    Args:
        model: Images to class and detector logits.
        task: What to attack, under the L2 norm. Its epsilon is not used: the perturbation found is the result.
        arguments: Steps, constants, selection.

    Returns:
        ``correct``: the smallest image that fools both, or else the misclassified one with the lowest detector
        logit; ``reference``: the smallest misclassified image.

    Raises:
        ConfigurationError: The norm is not L2.
    """
    if task.norm != "l2":
        raise ConfigurationError(f"norm: cw_detector searches the smallest L2 perturbation, got {task.norm!r}; set l2")
    tracker = Tracker(task)
    bisection = ConstantBisection.start(task.images, arguments.initial_constant)
    for _ in range(arguments.binary_search_steps):
        run = _Run(model, task, tracker, arguments=arguments, constants=bisection.constant)
        bisection.narrow(run.descend())
    return tracker.candidates()


@dataclass(kw_only=True)
class _OpenRows(Rows):
    """Rows still in a run: their numbers in the task, points in tanh space, optimiser and last checked loss."""

    rows: Tensor
    points: Tensor
    adam: AdamState
    checked_loss: Tensor


class _Run:
    """One Adam descent of all images, at given constants."""

    def __init__(
        self,
        model: EndToEndModel,
        task: AdaptiveTask,
        tracker: Tracker,
        *,
        arguments: CwDetectorArguments,
        constants: Tensor,
    ) -> None:
        self._model, self._task, self._tracker = model, task, tracker
        self._arguments, self._constants = arguments, constants
        self._space = TanhSpace(*task.bounds, TANH_MARGIN[arguments.selection])
        self._success = torch.zeros(len(task), dtype=torch.bool, device=task.images.device)
        self._choose = combined_direction(self._objective)
        self._batch, self._batch_constants = task, constants
        self._latest_loss = constants

    def descend(self) -> Tensor:
        """Run Adam; return for which images it succeeded, bool ``(N,)``."""
        active = _begin(self._task, self._space)
        every = ceil(self._arguments.steps / ABORT_CHECKS)
        for step in range(1, self._arguments.steps + 1):
            if not len(active.rows):
                break
            self._step(active)
            if self._arguments.abort_early and step % every == 0:
                active = self._drop_stalled(active)
        if len(active.rows):
            with torch.no_grad():
                self._judge(active.rows, self._evaluate(active))
        return self._success

    def _step(self, active: _OpenRows) -> None:
        evaluation = self._evaluate(active)
        self._judge(active.rows, evaluation)
        direction = self._choose(evaluation, self._batch)
        self._tracker.spend(active.rows, direction)
        gradient = direction.values * self._space.slope(active.points.tanh())
        active.points.sub_(active.adam.move(gradient, self._arguments.learning_rate))

    def _evaluate(self, active: _OpenRows) -> Evaluation:
        return evaluate(self._model, self._space.pixels(active.points.tanh()), self._batch)

    def _objective(self, evaluation: Evaluation, batch: AdaptiveTask) -> Tensor:
        attacked = classifier_loss(evaluation.class_logits, batch, "hinge", self._arguments.confidence)
        suspicion = detector_loss(evaluation.detector_logits, self._task.threshold, self._arguments.selection)
        size = (evaluation.images - batch.images).flatten(1).square().sum(dim=1)
        loss = size + self._batch_constants * attacked + self._arguments.detector_weight * suspicion
        self._latest_loss = loss.detach()
        return loss

    def _judge(self, rows: Tensor, evaluation: Evaluation) -> None:
        images = evaluation.images.detach()
        size = l2_norms(images - self._batch.images)
        slack, aside = (0.0, 0.0) if self._arguments.selection == "reference" else (CLASS_SLACK, DETECTOR_SLACK)
        fooled = evaluation.margin > max(self._arguments.confidence, slack)
        passed = evaluation.score <= self._task.threshold - aside
        if self._arguments.selection == "reference":
            keys = size
        else:
            keys = torch.where(passed, _before_zero(size), _after_zero(evaluation.score))
        self._tracker.offer(rows, images, torch.where(fooled, keys, NEVER))
        self._success[rows] |= fooled

    def _drop_stalled(self, active: _OpenRows) -> _OpenRows:
        loss = self._latest_loss
        kept = torch.nonzero(loss <= ABORT_IMPROVEMENT * active.checked_loss).squeeze(1)
        remaining = replace(active, checked_loss=loss).select(kept)
        self._batch = self._task.select(remaining.rows)
        self._batch_constants = self._constants[remaining.rows]
        return remaining


def _begin(task: AdaptiveTask, space: TanhSpace) -> _OpenRows:
    points = space.points(task.images)
    return _OpenRows(
        rows=torch.arange(len(task), device=points.device),
        points=points,
        adam=AdamState.at_rest(points),
        checked_loss=points.new_full((len(task),), INFINITY),
    )


def _before_zero(size: Tensor) -> Tensor:
    """Map sizes from [0, inf) to keys in [-1, 0), in the same order: images that pass come first."""
    return -1.0 / (1.0 + size)


def _after_zero(score: Tensor) -> Tensor:
    """Map scores to keys in (0, 2), in the same order: behind all images that pass."""
    return 1.0 + score / (1.0 + score.abs())
