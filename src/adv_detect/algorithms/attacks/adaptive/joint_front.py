"""The pairs of image and target class of a joint descent: where they are, how far they got, how both losses weigh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from adv_detect.algorithms.attacks.adaptive.step_sizes import StepSizes
from adv_detect.algorithms.finite import per_row

WEIGHT_RATE = 0.1
"""By how much the log-odds of two weights move in a step in which one of the two alone resists."""
LARGEST_ODDS = 2.0
DETECTOR_ALONE = -50.0
"""Log-odds at which the network weighs nothing."""
LEAST_SCALE = 1e-3
SLACK = 0.02
"""How far beyond its boundary a model is pushed, as a share of its largest loss."""


@dataclass(frozen=True, kw_only=True)
class Front:
    """The pairs still in a run, one per row; all pairs of an image stay or leave together.

    Losses are those of the network and of the parts of the detector side by side, ``(n, 1 + M)``: at most 0 where that
    one is on the attacker's side.

    Attributes:
        rows: Row of the image in the task.
        aims: Target classes.
        images: Where the pair is.
        before: Where it was a step before.
        losses: Losses there.
        best: Its point with the lowest joint loss.
        best_losses: Losses there.
        scales: Largest size of each loss so far.
        odds: Logarithms of their weights; that of the network is `DETECTOR_ALONE` where it is not asked.
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

    @classmethod
    def join(cls, parts: Sequence[Front], order: Tensor) -> Front:
        """Put parts below each other, and their rows into the places that ``order`` gives."""
        names = [one.name for one in fields(cls)]
        joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names if name != "step_sizes"}
        sizes = StepSizes.join([part.step_sizes for part in parts])
        return cls(**joined, step_sizes=sizes).select(order.argsort())

    def select(self, kept: Tensor) -> Front:
        """Keep some pairs."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        return Front(**{name: one.select(kept) if name == "step_sizes" else one[kept] for name, one in parts.items()})

    @property
    def alone(self) -> Tensor:
        """Pairs whose detector is followed whatever the network says, bool, ``(n,)``."""
        return self.odds[:, 0] == DETECTOR_ALONE

    def resistance(self, losses: Tensor) -> Tensor:
        """Give losses ``(n, 1 + M)`` as shares of the largest, 0 from a little beyond the boundary on."""
        return (losses / self.scales + SLACK).clamp_min(0.0)

    def joint(self, losses: Tensor) -> Tensor:
        """Join losses ``(n, 1 + M)`` under the weights of the moment, ``(n,)``."""
        return (self.odds.softmax(dim=1) * self.resistance(losses)).sum(dim=1)


def take_in(front: Front, losses: Tensor) -> Front:
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


def moved_odds(front: Front) -> Tensor:
    """Give weight to those that still resist, at the cost of the others."""
    resists = (front.losses > 0).to(front.odds)
    change = WEIGHT_RATE * (resists - resists.mean(dim=1, keepdim=True))
    return (front.odds + change).clamp(-LARGEST_ODDS, LARGEST_ODDS)


def halve(front: Front, period: int) -> Front:
    """Halve step sizes at a checkpoint, and go on from the best point where one was halved."""
    step_sizes, halved = front.step_sizes.check(period, front.joint(front.best_losses))
    back = per_row(halved, front.images)
    images = torch.where(back, front.best, front.images)
    return replace(front, step_sizes=step_sizes, images=images, before=torch.where(back, images, front.before))


def meet_network(front: Front, met: Tensor, *, size: float) -> Front:
    """Let the network count where ``met`` ``(n,)``: from the best point, with a fresh step size and even weights."""
    unknown, back = torch.full_like(front.losses, float("inf")), per_row(met, front.images)
    images = torch.where(back, front.best, front.images)
    return replace(
        front,
        images=images,
        before=torch.where(back, images, front.before),
        losses=torch.where(met[:, None], unknown, front.losses),
        best_losses=torch.where(met[:, None], unknown, front.best_losses),
        step_sizes=front.step_sizes.renew(met, size),
        odds=torch.where(met[:, None], torch.zeros_like(front.odds), front.odds),
    )
