"""Random perturbations of the whole budget: what any attack that follows something has to beat."""

from __future__ import annotations

import torch

from adv_detect.algorithms.attacks.adaptive.geometry import starting_points
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, Candidates, EndToEndModel, class_margin
from adv_detect.algorithms.attacks.adaptive.tracker import NEVER, Tracker
from adv_detect.fields import Block, Count


class RandomNoiseArguments(Block):
    """Arguments of the random attack.

    Attributes:
        samples: Random points of the budget tried per image.
    """

    samples: Count = 100

    @property
    def total_steps(self) -> int:
        """Steps of all runs on an image that withstands."""
        return self.samples


@torch.no_grad()
def random_noise(model: EndToEndModel, task: AdaptiveTask, arguments: RandomNoiseArguments) -> Candidates:
    """Try random points of the budget, as random starts are drawn.

    Args:
        model: Images to class and detector logits; need not be differentiable.
        task: What to attack.
        arguments: How many points.

    Returns:
        Per image the misclassified point with the lowest detector logit; no gradient is counted.
    """
    tracker = Tracker(task)
    for sample in range(1, arguments.samples + 1):
        rows = tracker.open_rows()
        if not len(rows):
            break
        batch = task.select(rows)
        images = starting_points(batch, sample)
        class_logits, scores = model(images)
        fooled = class_margin(class_logits, batch) > 0
        through = fooled & (scores <= batch.threshold)
        tracker.offer(rows, images, torch.where(fooled, scores, NEVER))
        tracker.succeed(rows, through, sample)
        tracker.finish(rows, through)
    return tracker.candidates()
