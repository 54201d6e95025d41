"""Batched solvers with a box constraint: every image takes its own steps and leaves the batch when it is done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from adv_detect.algorithms.attacks.adam import AdamState
from adv_detect.algorithms.attacks.deep_features_objective import Box, Evaluation, Judge
from adv_detect.algorithms.finite import finite_rows, replace_rows


class Objective(Protocol):
    """Gives loss and gradient of the images at some rows."""

    def evaluate(self, images: Tensor, rows: Tensor) -> Evaluation:
        """Evaluate ``(n, channels, H, W)`` images of the rows int64 ``(n,)``."""
        ...


class Stepper(Protocol):
    """Turns evaluations into the next points to try; holds its state per image."""

    def advance(self, points: Tensor, evaluation: Evaluation, box: Box) -> Tensor:
        """Return the next points ``(n, channels, H, W)`` inside the box, after ``points`` were evaluated."""
        ...

    def finished(self) -> Tensor | None:
        """Return the images that cannot get any better, bool ``(n,)``; None where the solver cannot tell."""
        ...

    def select(self, kept: Tensor) -> None:
        """Keep the state of the images ``kept``, int64 ``(k,)``, only."""
        ...


@dataclass(frozen=True)
class Solution:
    """Result of a solver.

    Attributes:
        images: Point of the least loss, or the first one that fooled the judge, ``(N, channels, H, W)``.
        evaluations: Forward and backward passes of each image, int64 ``(N,)``.
        non_finite: Whether a loss or a gradient was NaN or infinite, bool ``(N,)``; such a point counts as infinitely
            bad and flat.
    """

    images: Tensor
    evaluations: Tensor
    non_finite: Tensor


class _Record:
    """Best point so far of every image of the attack."""

    def __init__(self, start: Tensor) -> None:
        self.images = start.clone()
        self.losses = start.new_full((len(start),), float("inf"))
        self.evaluations = torch.zeros(len(start), dtype=torch.int64, device=start.device)
        self.broken = torch.zeros(len(start), dtype=torch.bool, device=start.device)

    def note(self, rows: Tensor, points: Tensor, losses: Tensor) -> None:
        """Count an evaluation, and keep the points that are better than before."""
        self.evaluations[rows] += 1
        self.broken[rows] |= losses.isinf()
        better = losses < self.losses[rows]
        self.keep(rows[better], points[better], losses[better])

    def keep(self, rows: Tensor, points: Tensor, losses: Tensor) -> None:
        self.images[rows] = points
        self.losses[rows] = losses


def minimise(
    objective: Objective,
    start: Tensor,
    box: Box,
    stepper: Stepper,
    *,
    iterations: int,
    judge: Judge | None = None,
) -> Solution:
    """Minimise the loss of each image inside its box.

    Each round costs one forward and backward pass on the images still in the batch. An image leaves when the judge is
    fooled by a point other than its start, or when the stepper has finished with it.

    Args:
        objective: Loss per image.
        start: Points to start from, inside the box, ``(N, channels, H, W)``.
        box: What each pixel may become.
        stepper: The solver; fresh, as it holds state.
        iterations: Most rounds after the first evaluation.
        judge: Ends an image's run early; None runs to the end.

    Returns:
        The best point of each image, or the first one that fooled the judge.
    """
    record = _Record(start)
    rows = torch.arange(len(start), device=start.device)
    points, active = start, box
    for iteration in range(iterations + 1):
        if not len(rows):
            break
        evaluation = _finite(objective.evaluate(points, rows))
        record.note(rows, points, evaluation.loss)
        done = _won(judge, evaluation, rows) if iteration else torch.zeros_like(rows, dtype=torch.bool)
        record.keep(rows[done], points[done], evaluation.loss[done])
        points = stepper.advance(points, evaluation, active)
        finished = stepper.finished()
        leaving = done if finished is None else done | finished
        if bool(leaving.any()):
            kept = torch.nonzero(~leaving).squeeze(1)
            rows, points, active = rows[kept], points[kept], active.select(kept)
            stepper.select(kept)
    return Solution(record.images, record.evaluations, record.broken)


def _finite(evaluation: Evaluation) -> Evaluation:
    """Make points whose loss or gradient is not finite infinitely bad and flat, so that no solver goes on from them."""
    broken = ~finite_rows(evaluation.loss, evaluation.gradient)
    loss = evaluation.loss.masked_fill(broken, float("inf"))
    gradient = replace_rows(evaluation.gradient, torch.zeros_like(evaluation.gradient), broken)
    return replace(evaluation, loss=loss, gradient=gradient)


def _won(judge: Judge | None, evaluation: Evaluation, rows: Tensor) -> Tensor:
    if judge is None:
        return torch.zeros_like(rows, dtype=torch.bool)
    return judge.fooled(evaluation.features, rows) & evaluation.loss.isfinite()


class SignSteps:
    """Projected steps along the sign of the (momentum) gradient; the step shrinks linearly to nearly nothing.

    The momentum accumulates gradients of L1 norm 1 (Dong et al., "Boosting adversarial attacks with momentum", CVPR
    2018); ``momentum=0`` gives plain projected sign descent.
    """

    def __init__(self, *, iterations: int, learning_rate: float, momentum: float) -> None:
        """Set up; ``learning_rate`` is the first step as a share of the box's radius."""
        self.iterations = iterations
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.taken = 0
        self.velocity: Tensor | None = None

    def advance(self, points: Tensor, evaluation: Evaluation, box: Box) -> Tensor:
        """Take one step."""
        size = evaluation.gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
        unit = evaluation.gradient / size.clamp_min(torch.finfo(size.dtype).tiny)
        self.velocity = unit if self.velocity is None else self.momentum * self.velocity + unit
        step = self.learning_rate * box.radius * _decay(self.taken, self.iterations)
        self.taken += 1
        return box.project(points - step * self.velocity.sign())

    def finished(self) -> Tensor | None:
        """Return None: sign steps cannot tell."""
        return None

    def select(self, kept: Tensor) -> None:
        """Keep the velocity of some images."""
        if self.velocity is not None:
            self.velocity = self.velocity[kept]


class AdamSteps:
    """Projected Adam (Kingma and Ba, 2015); the step shrinks linearly to nearly nothing."""

    EPSILON = 1e-12

    def __init__(self, *, iterations: int, learning_rate: float) -> None:
        """Set up; ``learning_rate`` is the first step as a share of the box's radius."""
        self.iterations = iterations
        self.learning_rate = learning_rate
        self.taken = 0
        self.adam: AdamState | None = None

    def advance(self, points: Tensor, evaluation: Evaluation, box: Box) -> Tensor:
        """Take one step."""
        self.adam = AdamState.at_rest(points) if self.adam is None else self.adam
        rate = self.learning_rate * box.radius * _decay(self.taken, self.iterations)
        self.taken += 1
        return box.project(points - self.adam.move(evaluation.gradient, rate, epsilon=self.EPSILON))

    def finished(self) -> Tensor | None:
        """Return None: Adam cannot tell."""
        return None

    def select(self, kept: Tensor) -> None:
        """Keep the moments of some images."""
        if self.adam is not None:
            self.adam = self.adam.select(kept)


def _decay(taken: int, iterations: int) -> float:
    return max(1 - taken / iterations, 1 / iterations)
