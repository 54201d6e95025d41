"""Projected gradient descent on whatever direction an attack chooses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from adv_detect.algorithms.attacks.adaptive.geometry import Schedule, project, starting_points, step_factor, unit_step
from adv_detect.algorithms.attacks.adaptive.gradients import Direction, Evaluation, evaluate
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, Candidates, EndToEndModel
from adv_detect.algorithms.attacks.adaptive.tracker import NEVER, Tracker
from adv_detect.fields import Block, PositiveNumber

ChooseDirection = Callable[[Evaluation, AdaptiveTask], Direction]

PAPER_STEPS = 1000
CPU_CHECK_EVERY = 1
GPU_CHECK_EVERY = 10
"""Finding the done rows makes a GPU wait, so there they leave the batch only now and then."""


class DescentArguments(Block):
    """Common arguments of the projected-gradient attacks.

    Attributes:
        steps: Gradient steps of one run.
        restarts: Runs per image; the first starts at the clean image, the others at random points.
        relative_step: First step size as a share of epsilon.
        schedule: How the step size falls to 0 over a run.
        confidence: Class margin (logits) that has to be exceeded for an image to count as misclassified.
        return_early: An image that is misclassified and passes leaves the batch.
        detector_margin: How far below the threshold (logits) it has to be to leave early.
    """

    steps: int = Field(PAPER_STEPS, ge=1)
    restarts: int = Field(1, ge=1)
    relative_step: PositiveNumber = 0.2
    schedule: Schedule = "cosine"
    confidence: float = Field(1e-4, ge=0)
    return_early: bool = True
    detector_margin: float = Field(1e-3, ge=0)

    @property
    def total_steps(self) -> int:
        """Steps of all runs on an image that withstands."""
        return self.steps * self.restarts


def descend(
    model: EndToEndModel,
    task: AdaptiveTask,
    arguments: DescentArguments,
    *choices: ChooseDirection,
    use_guide: bool = False,
) -> Candidates:
    """Attack the rows of a task along each choice of direction in turn, and keep the best image of all.

    Args:
        model: Images to class and detector logits.
        task: What to attack.
        arguments: Steps, restarts and stopping.
        choices: Each picks the direction of the loss for the current iterates; rows done by one are left to it.
        use_guide: The directions need the guide's description of the iterates.

    Returns:
        Per image the misclassified iterate with the lowest detector logit.
    """
    tracker = Tracker(task)
    for choose in choices:
        Descent(model, task, tracker, arguments=arguments, choose=choose, use_guide=use_guide).run()
    return tracker.candidates()


class Descent:
    """Runs of projected gradient descent over the rows of one task.

    Every iterate is judged; kept is the misclassified one with the lowest detector logit.

    Args:
        model: Images to class and detector logits.
        task: What to attack.
        tracker: Where the best images go; rows that are done there are not attacked.
        arguments: Steps, restarts and stopping.
        choose: Picks the direction of the loss for the current iterates.
        use_guide: The direction needs the guide's description of the iterates.
    """

    def __init__(
        self,
        model: EndToEndModel,
        task: AdaptiveTask,
        tracker: Tracker,
        *,
        arguments: DescentArguments,
        choose: ChooseDirection,
        use_guide: bool = False,
    ) -> None:
        self._model, self._task, self._tracker = model, task, tracker
        self._arguments, self._choose = arguments, choose
        self._use_guide = use_guide
        self._check_every = CPU_CHECK_EVERY if task.images.device.type == "cpu" else GPU_CHECK_EVERY

    def run(self) -> None:
        """Attack all rows that are not done, from each starting point in turn."""
        for restart in range(self._arguments.restarts):
            self._run_once(restart)

    def _run_once(self, restart: int) -> None:
        rows = self._tracker.open_rows()
        batch = self._task.select(rows)
        images = starting_points(batch, restart)
        for step in range(self._arguments.steps):
            if not len(rows):
                return
            images = self._step(rows, batch, images, step)
            if (step + 1) % self._check_every == 0:
                rows, batch, images = self._drop_done(rows, batch, images)
        if len(rows):
            with torch.no_grad():
                self._judge(rows, evaluate(self._model, images, batch, use_guide=self._use_guide))

    def _step(self, rows: Tensor, batch: AdaptiveTask, images: Tensor, step: int) -> Tensor:
        evaluation = evaluate(self._model, images, batch, use_guide=self._use_guide)
        self._judge(rows, evaluation)
        direction = self._choose(evaluation, batch)
        self._tracker.spend(rows, direction)
        self._tracker.steps += 1
        length = batch.budget * self._arguments.relative_step
        length *= step_factor(step, self._arguments.steps, self._arguments.schedule)
        return project(images - length * unit_step(direction.values, batch.norm), batch)

    def _judge(self, rows: Tensor, evaluation: Evaluation) -> None:
        score = evaluation.score
        fooled = evaluation.margin > self._arguments.confidence
        passed = score <= self._task.threshold - self._arguments.detector_margin
        self._tracker.succeed(rows, fooled & passed, self._tracker.steps)
        self._tracker.offer(rows, evaluation.images.detach(), torch.where(fooled, score, NEVER))
        if self._arguments.return_early:
            self._tracker.finish(rows, fooled & passed)

    def _drop_done(self, rows: Tensor, batch: AdaptiveTask, images: Tensor) -> tuple[Tensor, AdaptiveTask, Tensor]:
        still_open = ~self._tracker.done[rows]
        if bool(still_open.all()):
            return rows, batch, images
        kept = torch.nonzero(still_open).squeeze(1)
        return rows[kept], batch.select(kept), images[kept]
