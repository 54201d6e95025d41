"""One descent of network and detector together, towards several target classes of each image at once.

For each pair of image and target class two losses are descended: how far the network is from naming the class, and how
far the detector is from passing an image of that name (``Detector.score_as``). Neither saturates while its model
resists; each counts as a share of the largest that it was, and only until its model is on the attacker's side. The
weight of whichever alone still resists grows, pair by pair. Where the detector reads the twin alone the network, dearer
by far, is asked only about images with which the detector nearly passes.
"""

from __future__ import annotations

from dataclasses import replace
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
    parts_under,
    raw_gradient,
)
from adv_detect.algorithms.attacks.adaptive.joint_state import (
    DETECTOR_ALONE,
    LEAST_SCALE,
    SLACK,
    JointState,
    halve,
    include_network,
    record_losses,
    update_odds,
)
from adv_detect.algorithms.attacks.adaptive.step_sizes import StepSizes, checkpoints
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, EndToEndModel, EvadableModel
from adv_detect.algorithms.attacks.adaptive.tracker import NEVER, Tracker
from adv_detect.algorithms.attacks.margins import logit_margin
from adv_detect.algorithms.finite import per_row
from adv_detect.fields import Block, PositiveNumber

MOMENTUM = 0.75
"""Share of the gradient's step in a step; the rest repeats the last step (Croce and Hein 2020: alpha)."""
OWN_PART = 0.5
"""Share of the steps of a warm start that go to the detector alone."""
WITHIN_REACH = 0.25
"""Loss of the detector, as a share of its largest, from which on it is worth asking the network too."""

Start = Literal["warm", "clean", "random"]
Runs = tuple[tuple[Start, ...], tuple[float, ...]]
USUAL_RUNS: Runs = (("clean", "warm", "random"), (0.5, 2.0, 0.1))
ALONE_RUNS: Runs = (("warm", "clean", "random"), (2.0, 0.5, 0.1))
"""Starting points and first step sizes; a detector that can be followed without the network is followed alone first."""


class JointDescentArguments(Block):
    """Arguments of a joint descent.

    Attributes:
        steps: Gradient steps of one run.
        restarts: Runs per image and target class.
        starts: Where the runs start, in turn: ``clean``, the image; ``warm``, adversarials of the detector alone;
            ``random``, a point of the budget. None: in this order, or, where the detector reads the twin alone, with
            the second first.
        relative_steps: First step size of the runs, in turn, as a share of the budget. None: the published 2, a fourth
            of it and less, or, where the detector is no twin, which falls to smaller ones, with the second first.
        confidence: Class margin (logits) that has to be exceeded for an image to count as misclassified.
        return_early: An image that is misclassified and passes leaves the batch.
        detector_margin: How far below the threshold (logits) it has to be to leave early.
    """

    steps: int = Field(PAPER_STEPS, ge=1)
    restarts: int = Field(5, ge=1)
    starts: tuple[Start, ...] | None = Field(None, min_length=1)
    relative_steps: tuple[PositiveNumber, ...] | None = Field(None, min_length=1)
    confidence: float = Field(1e-4, ge=0)
    return_early: bool = True
    detector_margin: float = Field(1e-3, ge=0)

    @property
    def total_steps(self) -> int:
        """Steps of all runs on an image that withstands."""
        return self.steps * self.restarts


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
        usual = ALONE_RUNS if _stands_alone(model) else USUAL_RUNS
        starts, sizes = arguments.starts or usual[0], arguments.relative_steps or usual[1]
        self._start, self._size = starts[restart % len(starts)], sizes[restart % len(sizes)]
        self._alone = int(arguments.steps * OWN_PART) if self._start == "warm" else 0

    def run(self, rows: Tensor, aims: Tensor) -> None:
        """Attack rows ``(n,)`` of the task towards their target classes ``(n, K)``."""
        self._pairs = aims.shape[1]
        state = self._begin(rows.repeat_interleave(self._pairs), aims.flatten())
        halving_steps, last = self._checkpoints(), 0
        for step in range(self._arguments.steps):
            state = self._step(state, step)
            if step + 1 in halving_steps:
                state, last = halve(state, step + 1 - last), step + 1
            state = self._drop_done(state)
            if not len(state.rows):
                return
        with torch.no_grad():
            self._judge(state, self._evaluate(state, state.images), self._arguments.steps)

    def _checkpoints(self) -> set[int]:
        rest = self._arguments.steps - self._alone
        return {*checkpoints(self._alone), *(self._alone + one for one in checkpoints(rest))}

    def _begin(self, rows: Tensor, aims: Tensor) -> JointState:
        batch = self._task.select(rows)
        images = starting_points(batch, 0 if self._start == "clean" else self._restart)
        with torch.no_grad():
            clean = self._losses(evaluate(self._model, batch.images, batch, aims=aims), aims)
        odds, unknown = torch.zeros_like(clean), torch.full_like(clean, float("inf"))
        if self._alone or _stands_alone(self._model):
            odds[:, 0] = DETECTOR_ALONE
        return JointState(
            rows=rows, aims=aims, images=images, before=images, losses=unknown, best=images, best_losses=unknown,
            scales=clean.abs().clamp_min(LEAST_SCALE), odds=odds,
            step_sizes=StepSizes.start(self._size, clean[:, 0]),
        )  # fmt: skip

    def _evaluate(self, state: JointState, images: Tensor) -> Evaluation:
        return evaluate(self._model, images, self._task.select(state.rows), aims=state.aims)

    def _losses(self, evaluation: Evaluation, aims: Tensor) -> Tensor:
        of_network = self._arguments.confidence - logit_margin(evaluation.class_logits, aims, targeted=True)
        return torch.cat([of_network[:, None], evaluation.evasions + self._arguments.detector_margin], dim=1)

    def _step(self, state: JointState, step: int) -> JointState:
        if step >= self._alone:
            state = include_network(state, state.alone & self._within_reach(state), size=self._size)
        joint, alone = (torch.nonzero(part).squeeze(1) for part in (~state.alone, state.alone))
        if not len(alone):
            return self._step_joint(state, step)
        if not len(joint):
            return self._step_alone(state)
        parts = [self._step_joint(state.select(joint), step), self._step_alone(state.select(alone))]
        return JointState.join(parts, torch.cat([joint, alone]))

    def _step_joint(self, state: JointState, step: int) -> JointState:
        evaluation = self._evaluate(state, state.images)
        self._judge(state, evaluation, step)
        losses = self._losses(evaluation, state.aims)
        state = record_losses(state, losses.detach())
        objective = state.joint(losses)
        if not self._arguments.return_early:
            highest = (losses / state.scales)[:, 1:].amax(dim=1)
            objective = objective + SLACK * highest.clamp_max(-SLACK)
        direction = probed_direction(objective, evaluation, probing=step % PROBE_EVERY == 0)
        self._spend(state, direction)
        return replace(self._moved(state, direction.values), odds=update_odds(state))

    def _step_alone(self, state: JointState) -> JointState:
        """Follow the detector, whatever the network says; it need not even be run for that."""
        leaf = state.images.detach().requires_grad_(True)
        evasions = parts_under(self._model, leaf, state.aims) - self._task.threshold + self._arguments.detector_margin
        losses = torch.cat([torch.zeros_like(evasions[:, :1]), evasions], dim=1)
        state = record_losses(state, losses.detach())
        values = raw_gradient(state.joint(losses), leaf)
        passing = (state.losses <= -SLACK * state.scales)[:, 1:].all(dim=1)
        evaluated, zero = counts(DETECTOR, is_absent(values) & ~passing)
        self._spend(state, Direction(values=values, evaluated=evaluated, zero=zero))
        return self._moved(state, values)

    def _moved(self, state: JointState, gradients: Tensor) -> JointState:
        """Step against the gradient and along the last step."""
        batch = self._task.select(state.rows)
        length = per_row(state.step_sizes.sizes * batch.budget, gradients)
        stepped = project(state.images - length * unit_step(gradients, batch.norm), batch)
        moved = state.images + MOMENTUM * (stepped - state.images) + (1 - MOMENTUM) * (state.images - state.before)
        return replace(state, images=project(moved, batch), before=state.images)

    def _judge(self, state: JointState, evaluation: Evaluation, step: int) -> None:
        """Offer of all pairs of an image the one with the lowest score."""
        score = evaluation.score
        fooled = evaluation.margin > self._arguments.confidence
        passed = score <= self._task.threshold - self._arguments.detector_margin
        keys = torch.where(fooled, score, NEVER)
        place = keys.reshape(-1, self._pairs).argmin(dim=1)
        place = place + torch.arange(0, len(keys), self._pairs, device=keys.device)
        rows, keys, success = state.rows[place], keys[place], (fooled & passed)[place]
        self._tracker.offer(rows, evaluation.images.detach()[place], keys)
        self._tracker.succeed(rows, success, self._restart * self._arguments.steps + step)
        if self._arguments.return_early:
            self._tracker.finish(rows, success)

    def _spend(self, state: JointState, direction: Direction) -> None:
        """Count the gradients of all pairs of an image."""
        shape = (-1, self._pairs, 2)
        evaluated, zero = (part.reshape(shape).sum(dim=1) for part in (direction.evaluated, direction.zero))
        self._tracker.spend(state.rows[:: self._pairs], replace(direction, evaluated=evaluated, zero=zero))

    def _within_reach(self, state: JointState) -> Tensor:
        """Find the images with which the detector passes, or nearly does, under the name of one class at least."""
        near = (state.losses <= WITHIN_REACH * state.scales)[:, 1:].all(dim=1)
        return near.reshape(-1, self._pairs).any(dim=1).repeat_interleave(self._pairs)

    def _drop_done(self, state: JointState) -> JointState:
        left = ~self._tracker.done[state.rows]
        return state if bool(left.all()) else state.select(torch.nonzero(left).squeeze(1))


def _stands_alone(model: EndToEndModel) -> bool:
    return isinstance(model, EvadableModel) and model.detector_stands_alone
