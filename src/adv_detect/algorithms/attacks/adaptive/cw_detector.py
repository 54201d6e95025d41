"""Carlini-Wagner L2 with the detector in its objective.

Source: Carlini and Wagner, "Towards evaluating the robustness of neural networks", 2017, with the detector term of
Massoli et al. 2021: ``||delta||^2 + c * f(x') + 1000 * BCE(detector, authentic)``. Departure: an image whose own
loss stalls leaves the batch (the original stops when the batch's sum stalls).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import ceil
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from adv_detect.algorithms.attacks.adaptive.combined import combined_direction
from adv_detect.algorithms.attacks.adaptive.geometry import l2_norms
from adv_detect.algorithms.attacks.adaptive.gradients import Evaluation, classifier_loss, evaluate
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, Candidates, EndToEndModel
from adv_detect.algorithms.attacks.adaptive.tracker import NEVER, Tracker
from adv_detect.errors import ConfigurationError
from adv_detect.fields import Block, PositiveNumber

REFERENCE_LEARNING_RATE = 5e-4
REFERENCE_STEPS = 1000
REFERENCE_SEARCH_STEPS = 10
REFERENCE_DETECTOR_WEIGHT = 1000.0
REFERENCE_THRESHOLD = 0.0
"""The reference lets a detector probability below 0.5 pass, which is a logit below 0."""
INITIAL_CONSTANT = 0.01
CONSTANT_GROWTH = 10.0
TANH_MARGIN = {"reference": 1.0 - 1e-6, "correct": 1.0 - 1e-3}
"""Clean pixels at the bounds are moved in by this factor, because tanh never reaches 1. The published one leaves pixels
that are exactly black or white so far out that a rate of 5e-4 does not bring them back within 1,000 steps."""
CLASS_SLACK, DETECTOR_SLACK = 1e-4, 1e-3
"""By how much (logits) the correct form must be beyond both thresholds, so that rounding does not undo a success."""
ABORT_CHECKS = 10
"""A run is divided into this many stretches; an image whose loss did not fall over one of them leaves."""
ABORT_IMPROVEMENT = 0.9999
ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8


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
    selection: Literal["reference", "correct"] = "correct"


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
    search = _ConstantSearch(task, arguments.initial_constant)
    for _ in range(arguments.binary_search_steps):
        run = _Run(model, task, tracker, arguments=arguments, constants=search.constants)
        search.narrow(run.descend())
    return tracker.candidates()


class _ConstantSearch:
    """Binary search per image for the smallest ``c`` that succeeds."""

    def __init__(self, task: AdaptiveTask, initial: float) -> None:
        self.constants = torch.full((len(task),), initial, device=task.images.device)
        self._low = torch.zeros_like(self.constants)
        self._high = torch.full_like(self.constants, NEVER)

    def narrow(self, success: Tensor) -> None:
        """Halve the interval of each image, or raise ``c`` tenfold while no success is known."""
        self._high = torch.where(success, torch.minimum(self._high, self.constants), self._high)
        self._low = torch.where(success, self._low, torch.maximum(self._low, self.constants))
        middle = (self._low + self._high) / 2
        self.constants = torch.where(self._high.isinf(), self.constants * CONSTANT_GROWTH, middle)


@dataclass(frozen=True, kw_only=True)
class _Front:
    """The rows still in a run: their points in tanh space, what Adam remembers, and their last checked loss."""

    rows: Tensor
    points: Tensor
    first_moment: Tensor
    second_moment: Tensor
    checked_loss: Tensor

    def select(self, kept: Tensor) -> _Front:
        return _Front(**{field.name: getattr(self, field.name)[kept] for field in fields(self)})


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
        self._aim = REFERENCE_THRESHOLD if arguments.selection == "reference" else task.threshold
        self._success = torch.zeros(len(task), dtype=torch.bool, device=task.images.device)
        self._choose = combined_direction(self._objective)
        self._batch, self._batch_constants = task, constants
        self._latest_loss = constants

    def descend(self) -> Tensor:
        """Run Adam; return for which images it succeeded, bool ``(N,)``."""
        front = _start(self._task, TANH_MARGIN[self._arguments.selection])
        every = ceil(self._arguments.steps / ABORT_CHECKS)
        for step in range(1, self._arguments.steps + 1):
            if not len(front.rows):
                break
            front = self._step(front, step)
            if self._arguments.abort_early and step % every == 0:
                front = self._drop_stalled(front)
        if len(front.rows):
            with torch.no_grad():
                self._judge(front.rows, self._look(front))
        return self._success

    def _step(self, front: _Front, step: int) -> _Front:
        evaluation = self._look(front)
        self._judge(front.rows, evaluation)
        direction = self._choose(evaluation, self._batch)
        self._tracker.spend(front.rows, direction)
        slope = 1.0 - front.points.tanh().square()
        return _adam(front, direction.values * slope, step=step, rate=self._arguments.learning_rate)

    def _look(self, front: _Front) -> Evaluation:
        return evaluate(self._model, _pixels(front.points, self._task.bounds), self._batch)

    def _objective(self, evaluation: Evaluation, batch: AdaptiveTask) -> Tensor:
        attacked = classifier_loss(evaluation.class_logits, batch, "hinge", self._arguments.confidence)
        suspicion = functional.softplus(evaluation.detector_logits - self._aim)
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

    def _drop_stalled(self, front: _Front) -> _Front:
        loss = self._latest_loss
        kept = torch.nonzero(loss <= ABORT_IMPROVEMENT * front.checked_loss).squeeze(1)
        remaining = replace(front, checked_loss=loss).select(kept)
        self._batch = self._task.select(remaining.rows)
        self._batch_constants = self._constants[remaining.rows]
        return remaining


def _start(task: AdaptiveTask, margin: float) -> _Front:
    low, high = task.bounds
    unit = (task.images - (low + high) / 2) / ((high - low) / 2)
    points = torch.atanh(unit.clamp(-1.0, 1.0) * margin)
    return _Front(
        rows=torch.arange(len(task), device=points.device),
        points=points,
        first_moment=torch.zeros_like(points),
        second_moment=torch.zeros_like(points),
        checked_loss=torch.full((len(task),), float("inf"), device=points.device),
    )


def _pixels(points: Tensor, bounds: tuple[float, float]) -> Tensor:
    low, high = bounds
    return ((low + high) / 2 + (high - low) / 2 * points.tanh()).clamp(low, high)


def _adam(front: _Front, gradients: Tensor, *, step: int, rate: float) -> _Front:
    """Take step number ``step`` (from 1) of Adam (Kingma and Ba 2015, algorithm 1)."""
    fast, slow = ADAM_BETAS
    first = front.first_moment.lerp(gradients, 1 - fast)
    second = front.second_moment.lerp(gradients.square(), 1 - slow)
    size = (second / (1 - slow**step)).sqrt_().add_(ADAM_EPSILON)
    points = front.points - rate / (1 - fast**step) * first / size
    return replace(front, points=points, first_moment=first, second_moment=second)


def _before_zero(size: Tensor) -> Tensor:
    """Map sizes from [0, inf) to keys in [-1, 0), in the same order: images that pass come first."""
    return -1.0 / (1.0 + size)


def _after_zero(score: Tensor) -> Tensor:
    """Map scores to keys in (0, 2), in the same order: behind all images that pass."""
    return 1.0 + score / (1.0 + score.abs())
