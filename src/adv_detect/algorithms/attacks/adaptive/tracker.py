"""The best image of each row so far, and what was spent on it."""

from __future__ import annotations

import torch
from torch import Tensor

from adv_detect.algorithms.attacks.adaptive.gradients import Direction
from adv_detect.algorithms.attacks.adaptive.task import NO_SUCCESS, AdaptiveTask, Candidates
from adv_detect.algorithms.finite import per_row

NEVER = float("inf")
"""Key of an image that must not be kept."""


class Tracker:
    """Keeps per row the image with the lowest key, and counts gradient evaluations and steps.

    Once a row is done neither its image nor its counts change, so that the outcome does not depend on how
    soon done rows leave the batch.
    """

    def __init__(self, task: AdaptiveTask) -> None:
        count, device = len(task), task.images.device
        self.images = task.images.clone()
        self.keys = torch.full((count,), NEVER, device=device)
        self.done = torch.zeros(count, dtype=torch.bool, device=device)
        self.evaluated = torch.zeros(count, 2, dtype=torch.int64, device=device)
        self.zero = torch.zeros(count, 2, dtype=torch.int64, device=device)
        self.steps = 0
        self.first_success = torch.full((count,), NO_SUCCESS, device=device)

    def open_rows(self) -> Tensor:
        """Return the rows that are not done, int64, ``(n,)``."""
        return torch.nonzero(~self.done).squeeze(1)

    def offer(self, rows: Tensor, images: Tensor, keys: Tensor) -> None:
        """Keep images whose key is lower than the best so far.

        Args:
            rows: Row of each image, ``(n,)``.
            images: Shape ``(n, channels, H, W)``.
            keys: Shape ``(n,)``; lower is better, ``NEVER`` is not kept.
        """
        best = self.keys[rows]
        better = (keys < best) & ~self.done[rows]
        self.keys[rows] = torch.where(better, keys, best)
        self.images[rows] = torch.where(per_row(better, images), images, self.images[rows])

    def finish(self, rows: Tensor, done: Tensor) -> None:
        """Close rows ``(n,)`` where ``done`` ``(n,)`` is true."""
        self.done[rows] |= done

    def succeed(self, rows: Tensor, success: Tensor, steps: int) -> None:
        """Note after how many steps rows ``(n,)`` first got through, where ``success`` ``(n,)``."""
        first = success & (self.first_success[rows] == NO_SUCCESS)
        self.first_success[rows] = torch.where(first, steps, self.first_success[rows])

    def spend(self, rows: Tensor, direction: Direction) -> None:
        """Count the gradient evaluations of rows that are not done."""
        still_open = (~self.done[rows])[:, None]
        self.evaluated[rows] += direction.evaluated * still_open
        self.zero[rows] += direction.zero * still_open

    def candidates(self) -> Candidates:
        """Return the images kept and what they cost."""
        share = self.zero / self.evaluated.clamp_min(1)
        return Candidates(
            images=self.images,
            gradient_evaluations=self.evaluated.sum(dim=1),
            zero_gradient_share=share.amax(dim=1) if len(share) else share.new_zeros(0),
            first_success=self.first_success,
        )
