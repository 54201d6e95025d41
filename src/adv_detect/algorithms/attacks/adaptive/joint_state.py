"""State of a joint descent: points, losses, weights and step sizes of pairs of image and target class."""

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
class JointState:
    """State of the pairs still in a run, one per row; all pairs of an image stay or leave together.

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
    def join(cls, parts: Sequence[JointState], order: Tensor) -> JointState:
        """Put parts below each other, and their rows into the places that ``order`` gives."""
        names = [one.name for one in fields(cls)]
        joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names if name != "step_sizes"}
        sizes = StepSizes.join([part.step_sizes for part in parts])
        return cls(**joined, step_sizes=sizes).select(order.argsort())

    def select(self, kept: Tensor) -> JointState:
        """Keep some pairs."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        return JointState(
            **{name: one.select(kept) if name == "step_sizes" else one[kept] for name, one in parts.items()}
        )

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


def record_losses(state: JointState, losses: Tensor) -> JointState:
    """Compare the losses of the point where the pairs are with those before and with the best."""
    finite = losses.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    state = replace(state, scales=torch.maximum(state.scales, finite.abs()))
    now = state.joint(losses)
    better = now < state.joint(state.best_losses)
    return replace(
        state,
        losses=losses,
        best=torch.where(per_row(better, state.images), state.images, state.best),
        best_losses=torch.where(better[:, None], losses, state.best_losses),
        step_sizes=state.step_sizes.count(now < state.joint(state.losses)),
    )


def update_odds(state: JointState) -> Tensor:
    """Give weight to those that still resist, at the cost of the others."""
    resists = (state.losses > 0).to(state.odds)
    change = WEIGHT_RATE * (resists - resists.mean(dim=1, keepdim=True))
    return (state.odds + change).clamp(-LARGEST_ODDS, LARGEST_ODDS)


def halve(state: JointState, period: int) -> JointState:
    """Halve step sizes at a checkpoint, and go on from the best point where one was halved."""
    step_sizes, halved = state.step_sizes.check(period, state.joint(state.best_losses))
    back = per_row(halved, state.images)
    images = torch.where(back, state.best, state.images)
    return replace(state, step_sizes=step_sizes, images=images, before=torch.where(back, images, state.before))


def include_network(state: JointState, included: Tensor, *, size: float) -> JointState:
    """Let the network count where ``included`` ``(n,)``: from its best point, with fresh step size and even weights."""
    unknown, back = torch.full_like(state.losses, float("inf")), per_row(included, state.images)
    images = torch.where(back, state.best, state.images)
    return replace(
        state,
        images=images,
        before=torch.where(back, images, state.before),
        losses=torch.where(included[:, None], unknown, state.losses),
        best_losses=torch.where(included[:, None], unknown, state.best_losses),
        step_sizes=state.step_sizes.renew(included, size),
        odds=torch.where(included[:, None], torch.zeros_like(state.odds), state.odds),
    )
