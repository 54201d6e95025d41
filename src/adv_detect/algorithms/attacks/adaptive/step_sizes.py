"""Step sizes that halve by themselves, image by image.

Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020, section 3 and algorithm 1 (APGD).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

FIRST_PERIOD, PERIOD_SHRINKS, LEAST_PERIOD = 0.22, 0.03, 0.06
"""Share of the steps before the first checkpoint, by how much each period is shorter than the last, and the least."""
ENOUGH_PROGRESS = 0.75
"""Share of the steps of a period that have to lower the loss; with fewer the step size halves."""


def checkpoints(steps: int) -> tuple[int, ...]:
    """Give the steps after which the step sizes are looked at.

    Args:
        steps: Of the whole run.

    Returns:
        Ascending numbers of steps, each at most ``steps``.
    """
    shares = [0.0, FIRST_PERIOD]
    while shares[-1] < 1.0:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - PERIOD_SHRINKS, LEAST_PERIOD))
    found = (_rounded_up(share * steps) for share in shares[1:] if share <= 1.0)
    return tuple(dict.fromkeys(found))


def _rounded_up(value: float) -> int:
    return -int(-round(value, 6) // 1)


@dataclass(frozen=True, kw_only=True)
class StepSizes:
    """Step sizes of some images and the progress that they are judged by.

    Attributes:
        sizes: As a share of the budget, ``(N,)``.
        improved: Steps of this period that lowered the loss, int64, ``(N,)``.
        halved: Whether the last checkpoint halved the step size, bool, ``(N,)``.
        best_before: Lowest loss at the last checkpoint, ``(N,)``.
    """

    sizes: Tensor
    improved: Tensor
    halved: Tensor
    best_before: Tensor

    @classmethod
    def start(cls, size: float, like: Tensor) -> StepSizes:
        """Give all images of ``like`` ``(N,)`` the same step size."""
        return cls(
            sizes=torch.full_like(like, size),
            improved=torch.zeros_like(like, dtype=torch.int64),
            halved=torch.ones_like(like, dtype=torch.bool),  # the first checkpoint has nothing to compare with
            best_before=torch.full_like(like, float("inf")),
        )

    @classmethod
    def join(cls, parts: Sequence[StepSizes]) -> StepSizes:
        """Put the images of several below each other."""
        return cls(**{one.name: torch.cat([getattr(part, one.name) for part in parts]) for one in fields(cls)})

    def renew(self, rows: Tensor, size: float) -> StepSizes:
        """Start again where ``rows`` ``(N,)``."""
        fresh = StepSizes.start(size, self.sizes)
        names = [one.name for one in fields(self)]
        return StepSizes(**{name: torch.where(rows, getattr(fresh, name), getattr(self, name)) for name in names})

    def select(self, rows: Tensor) -> StepSizes:
        """Keep some images."""
        return StepSizes(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def count(self, improved: Tensor) -> StepSizes:
        """Count a step that lowered the loss of the images where ``improved`` ``(N,)``."""
        return StepSizes(
            sizes=self.sizes, improved=self.improved + improved, halved=self.halved, best_before=self.best_before
        )

    def check(self, period: int, best: Tensor) -> tuple[StepSizes, Tensor]:
        """Halve where too few steps made progress, or where the best loss stands still at an unchanged step size.

        Args:
            period: Steps since the last checkpoint.
            best: Lowest loss so far, ``(N,)``.

        Returns:
            The step sizes, and where they were halved, bool ``(N,)``: there a run goes on from its best point.
        """
        slow = self.improved < ENOUGH_PROGRESS * period
        stuck = ~self.halved & (best >= self.best_before)
        halve = slow | stuck
        return (
            StepSizes(
                sizes=torch.where(halve, self.sizes / 2, self.sizes),
                improved=torch.zeros_like(self.improved),
                halved=halve,
                best_before=best,
            ),
            halve,
        )
