"""One descent of network and detector together, towards several target classes of each image at once.

For each pair of image and target class two losses are descended: how far the network is from naming the class, and how
far the detector is from passing an image of that name (``Detector.score_as``). Neither saturates while its model
resists; each counts as a share of the largest that it was, and only until its model is on the attacker's side. The
weight of whichever alone still resists grows, pair by pair.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from adv_detect.algorithms.attacks.adaptive.combined import PROBE_EVERY, probed_direction
from adv_detect.algorithms.attacks.adaptive.descent import PAPER_STEPS
from adv_detect.algorithms.attacks.adaptive.geometry import project, starting_points, unit_step
from adv_detect.algorithms.attacks.adaptive.gradients import (
    DETECTOR,
    Direction,
    Evaluation,
    counts,
    evaluate,
    is_absent,
    raw_gradient,
    scores_under,
)
from adv_detect.algorithms.attacks.adaptive.step_sizes import StepSizes, checkpoints
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, EndToEndModel
from adv_detect.algorithms.attacks.adaptive.tracker import NEVER, Tracker
from adv_detect.algorithms.attacks.margins import logit_margin
from adv_detect.algorithms.finite import per_row
from adv_detect.fields import Block

MOMENTUM = 0.75
"""Share of the gradient's step in a step; the rest repeats the last step (Croce and Hein 2020: alpha)."""
FIRST_STEP = 2.0
"""First step size as a share of the budget."""
WEIGHT_RATE = 0.1
"""By how much the log-odds of the weights move in a step in which one of the two models alone resists."""
LARGEST_ODDS = 4.0
DETECTOR_ALONE = -50.0
"""Log-odds at which the network weighs nothing."""
SLACK = 0.02
"""How far beyond its boundary a model is pushed, as a share of its largest loss."""
LEAST_SCALE = 1e-3
OWN_PART = 0.75
"""Share of the steps of a warm start that go to the detector alone."""
WITHIN_REACH = 0.5
"""Largest loss of the detector, as a share of its largest, from which a warm start goes on to the network."""

Start = Literal["warm", "clean", "random"]


class JointDescentArguments(Block):
    """Arguments of a joint descent.

    Attributes:
        steps: Gradient steps of one run.
        restarts: Runs per image and target class.
        starts: Where the runs start, in turn: ``warm``, adversarials of the detector alone, which cost little where it
            reads the twin alone (an image with which it cannot be moved towards any class is left to the other runs);
            ``clean``, the image; ``random``, a point of the budget.
        confidence: Class margin (logits) that has to be exceeded for an image to count as misclassified.
        return_early: An image that is misclassified and passes leaves the batch.
        detector_margin: How far below the threshold (logits) it has to be to leave early.
    """

    steps: int = Field(PAPER_STEPS, ge=1)
    restarts: int = Field(5, ge=1)
    starts: tuple[Start, ...] = Field(("warm", "clean", "random"), min_length=1)
    confidence: float = Field(1e-4, ge=0)
    return_early: bool = True
    detector_margin: float = Field(1e-3, ge=0)

    @property
    def total_steps(self) -> int:
        """Steps of all runs on an image that withstands."""
        return self.steps * self.restarts


@dataclass(frozen=True, kw_only=True)
class _Front:
    """The pairs still in a run, one per row; all pairs of an image stay or leave together.

    Losses are those of network and detector side by side, ``(n, 2)``: at most 0 where the model is on the attacker's
    side.

    Attributes:
        rows: Row of the image in the task.
        aims: Target classes.
        images: Where the pair is.
        before: Where it was a step before.
        losses: Losses there.
        best: Its point with the lowest joint loss.
        best_losses: Losses there.
        scales: Largest size of either loss so far.
        odds: Log-odds of the weight of the network's loss.
        step_sizes: Sizes and progress.
    """

    rows: Tensor
    aims: Tensor
    images: Tensor
    before: Tensor
    losses: Tensor
    best: Tensor
    best_losses: Tensor
    scales: Tensor
    odds: Tensor
    step_sizes: StepSizes

    def select(self, kept: Tensor) -> _Front:
        """Keep some pairs."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        return _Front(**{name: one.select(kept) if name == "step_sizes" else one[kept] for name, one in parts.items()})

    def resistance(self, losses: Tensor) -> Tensor:
        """Give losses ``(n, 2)`` as shares of the largest, 0 from a little beyond the boundary on."""
        return (losses / self.scales + SLACK).clamp_min(0.0)

    def joint(self, losses: Tensor) -> Tensor:
        """Join losses ``(n, 2)`` under the weights of the moment, ``(n,)``."""
        share, resistance = self.odds.sigmoid(), self.resistance(losses)
        return share * resistance[:, 0] + (1 - share) * resistance[:, 1]


class JointDescent:
    """One run over some images of a task, from one starting point.

    Args:
        model: Images to class and detector logits.
        task: What to attack.
        tracker: Where the best images go.
        arguments: Steps and stopping.
        restart: Number of the run; says where it starts.
    """

    def __init__(
        self,
        model: EndToEndModel,
        task: AdaptiveTask,
        tracker: Tracker,
        *,
        arguments: JointDescentArguments,
        restart: int,
    ) -> None:
        self._model, self._task, self._tracker, self._arguments = model, task, tracker, arguments
        self._restart, self._pairs = restart, 1
        self._start = arguments.starts[restart % len(arguments.starts)]
        self._alone = int(arguments.steps * OWN_PART) if self._start == "warm" else 0

    def run(self, rows: Tensor, aims: Tensor) -> None:
        """Attack rows ``(n,)`` of the task towards their target classes ``(n, K)``."""
        self._pairs = aims.shape[1]
        front = self._begin(rows.repeat_interleave(self._pairs), aims.flatten())
        marks, last = self._checkpoints(), 0
        for step in range(self._arguments.steps):
            front = self._step(front, step)
            if step + 1 in marks:
                front, last = _halve(front, step + 1 - last), step + 1
            if step + 1 == self._alone:
                front = _begin_again(self._within_reach(front))
            front = self._drop_done(front)
            if not len(front.rows):
                return
        with torch.no_grad():
            self._judge(front, self._evaluate(front, front.images), self._arguments.steps)

    def _checkpoints(self) -> set[int]:
        rest = self._arguments.steps - self._alone
        return {*checkpoints(self._alone), *(self._alone + one for one in checkpoints(rest))}

    def _begin(self, rows: Tensor, aims: Tensor) -> _Front:
        batch = self._task.select(rows)
        images = starting_points(batch, 0 if self._start == "clean" else self._restart)
        empty = images.new_full((len(rows),), DETECTOR_ALONE if self._alone else 0.0)
        unknown = images.new_full((len(rows), 2), float("inf"))
        front = _Front(
            rows=rows, aims=aims, images=images, before=images, losses=unknown, best=images, best_losses=unknown,
            scales=unknown, odds=empty, step_sizes=StepSizes.start(FIRST_STEP, empty),
        )  # fmt: skip
        with torch.no_grad():
            clean = self._losses(front, self._evaluate(front, batch.images))
        return replace(front, scales=clean.abs().clamp_min(LEAST_SCALE))

    def _evaluate(self, front: _Front, images: Tensor) -> Evaluation:
        return evaluate(self._model, images, self._task.select(front.rows), aims=front.aims)

    def _losses(self, front: _Front, evaluation: Evaluation) -> Tensor:
        of_network = self._arguments.confidence - logit_margin(evaluation.class_logits, front.aims, targeted=True)
        return torch.stack([of_network, evaluation.evasion + self._arguments.detector_margin], dim=1)

    def _step(self, front: _Front, step: int) -> _Front:
        if step < self._alone:
            return self._step_alone(front, step)
        evaluation = self._evaluate(front, front.images)
        self._judge(front, evaluation, step)
        losses = self._losses(front, evaluation)
        front = _take_in(front, losses.detach())
        objective = front.joint(losses)
        if not self._arguments.return_early:
            objective = objective + SLACK * (losses[:, 1] / front.scales[:, 1]).clamp_max(-SLACK)
        direction = probed_direction(objective, evaluation, probing=step % PROBE_EVERY == 0)
        self._spend(front, direction)
        return replace(self._moved(front, direction.values), odds=_moved_odds(front))

    def _step_alone(self, front: _Front, step: int) -> _Front:
        """Follow the detector, whatever the network says; it need not even be run for that."""
        leaf = front.images.detach().requires_grad_(True)
        evasion = scores_under(self._model, leaf, front.aims) - self._task.threshold + self._arguments.detector_margin
        losses = torch.stack([torch.zeros_like(evasion), evasion], dim=1)
        front = _take_in(front, losses.detach())
        values = raw_gradient(front.joint(losses), leaf)
        passing = front.losses[:, 1] <= -SLACK * front.scales[:, 1]
        evaluated, zero = counts(DETECTOR, is_absent(values) & ~passing)
        self._spend(front, Direction(values=values, evaluated=evaluated, zero=zero))
        return self._moved(front, values)

    def _moved(self, front: _Front, gradients: Tensor) -> _Front:
        """Step against the gradient and along the last step."""
        batch = self._task.select(front.rows)
        length = per_row(front.step_sizes.sizes * batch.budget, gradients)
        stepped = project(front.images - length * unit_step(gradients, batch.norm), batch)
        moved = front.images + MOMENTUM * (stepped - front.images) + (1 - MOMENTUM) * (front.images - front.before)
        return replace(front, images=project(moved, batch), before=front.images)

    def _judge(self, front: _Front, evaluation: Evaluation, step: int) -> None:
        """Offer of all pairs of an image the one with the lowest score."""
        score = evaluation.score
        fooled = evaluation.margin > self._arguments.confidence
        passed = score <= self._task.threshold - self._arguments.detector_margin
        keys = torch.where(fooled, score, NEVER)
        place = keys.reshape(-1, self._pairs).argmin(dim=1)
        place = place + torch.arange(0, len(keys), self._pairs, device=keys.device)
        rows, keys, success = front.rows[place], keys[place], (fooled & passed)[place]
        self._tracker.offer(rows, evaluation.images.detach()[place], keys)
        self._tracker.succeed(rows, success, self._restart * self._arguments.steps + step)
        if self._arguments.return_early:
            self._tracker.finish(rows, success)

    def _spend(self, front: _Front, direction: Direction) -> None:
        """Count the gradients of all pairs of an image."""
        shape = (-1, self._pairs, 2)
        evaluated, zero = (part.reshape(shape).sum(dim=1) for part in (direction.evaluated, direction.zero))
        self._tracker.spend(front.rows[:: self._pairs], replace(direction, evaluated=evaluated, zero=zero))

    def _within_reach(self, front: _Front) -> _Front:
        """Keep the images with which the detector passes, or nearly does, under the name of one class at least."""
        near = front.best_losses[:, 1] <= WITHIN_REACH * front.scales[:, 1]
        of_image = near.reshape(-1, self._pairs).any(dim=1).repeat_interleave(self._pairs)
        return front.select(torch.nonzero(of_image).squeeze(1))

    def _drop_done(self, front: _Front) -> _Front:
        left = ~self._tracker.done[front.rows]
        return front if bool(left.all()) else front.select(torch.nonzero(left).squeeze(1))


def _take_in(front: _Front, losses: Tensor) -> _Front:
    """Compare the losses of the point where the pairs are with those before and with the best."""
    finite = losses.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    front = replace(front, scales=torch.maximum(front.scales, finite.abs()))
    now = front.joint(losses)
    better = now < front.joint(front.best_losses)
    return replace(
        front,
        losses=losses,
        best=torch.where(per_row(better, front.images), front.images, front.best),
        best_losses=torch.where(better[:, None], losses, front.best_losses),
        step_sizes=front.step_sizes.count(now < front.joint(front.losses)),
    )


def _moved_odds(front: _Front) -> Tensor:
    """Give weight to the one model that still resists."""
    network, detector = (front.losses > 0).unbind(dim=1)
    change = WEIGHT_RATE * (network.to(front.odds) - detector.to(front.odds))
    return (front.odds + change).clamp(-LARGEST_ODDS, LARGEST_ODDS)


def _halve(front: _Front, period: int) -> _Front:
    """Halve step sizes at a checkpoint, and go on from the best point where one was halved."""
    step_sizes, halved = front.step_sizes.check(period, front.joint(front.best_losses))
    back = per_row(halved, front.images)
    images = torch.where(back, front.best, front.images)
    return replace(front, step_sizes=step_sizes, images=images, before=torch.where(back, images, front.before))


def _begin_again(front: _Front) -> _Front:
    """Go on from the best point with fresh step sizes, now that the network counts too."""
    fresh = StepSizes.start(FIRST_STEP, front.odds)
    even, unknown = torch.zeros_like(front.odds), torch.full_like(front.losses, float("inf"))
    return replace(
        front, images=front.best, before=front.best, losses=unknown, best_losses=unknown, step_sizes=fresh, odds=even
    )
