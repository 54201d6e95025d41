"""The search behind the Carlini-Wagner attack: Adam in tanh space, and bisection of the constant, per image.

All state is one row per image; rows advance through their rounds independently and leave the batch when done. The
host reads the state at the checks only, never within.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from adv_detect.algorithms.attacks.adam import AdamState, Rows
from adv_detect.algorithms.attacks.margins import logit_margin
from adv_detect.algorithms.attacks.result import AttackResult
from adv_detect.algorithms.attacks.tanh_search import INFINITY, ConstantBisection, TanhSpace
from adv_detect.algorithms.finite import finite_rows, per_row

CHECKS_PER_ROUND = 10
SHORTEST_INTERVAL = 25
PROGRESS_PER_STEP = 1e-4
ROUNDS_FOR_LARGEST_CONST = 10
TANH_LIMIT = 0.999999
ROUNDING_MARGIN = 1e-5


@dataclass(frozen=True)
class SearchSettings:
    """Length and start of the search; see the attack's constructor."""

    rounds: int
    steps: int
    step_size: float
    confidence: float
    initial_const: float
    abort_early: bool

    @property
    def interval(self) -> int:
        """Steps between two checks."""
        checks = max(1, min(CHECKS_PER_ROUND, self.steps // SHORTEST_INTERVAL))
        return math.ceil(self.steps / checks)


@dataclass
class SearchState(Rows):
    """One row per image still searched, n in all.

    Attributes:
        row: Position of the image in the result.
        source: Source image.
        anchor: The source in tanh space.
        reconstructed: The anchor back in the pixel range.
        classes: Class to reach or to leave.
        delta: Perturbation in tanh space.
        adam: The optimiser of this round.
        round: Rounds ended.
        bisection: Constant c of this round, and its bounds.
        found: Whether this round had a success.
        floor: Smallest loss of this round.
        checked: The floor at the last check.
        best: Best image so far, the source before.
        best_norm: Its L2 distance, infinite before.
        best_class: Its predicted class.
        evaluations: Gradient evaluations spent.
        broken: Whether a gradient or a loss was NaN or infinite; such a row goes no further.
    """

    row: Tensor
    source: Tensor
    anchor: Tensor
    reconstructed: Tensor
    classes: Tensor
    delta: Tensor
    adam: AdamState
    round: Tensor
    bisection: ConstantBisection
    found: Tensor
    floor: Tensor
    checked: Tensor
    best: Tensor
    best_norm: Tensor
    best_class: Tensor
    evaluations: Tensor
    broken: Tensor


class ConstantSearch:
    """Runs the search over a batch of images."""

    def __init__(self, model: Callable[[Tensor], Tensor], settings: SearchSettings, *, targeted: bool) -> None:
        """Take the model (its ``bounds`` are the pixel range), the settings and the meaning of the classes."""
        self._model = model
        self._settings = settings
        self._targeted = targeted
        low, high = model.bounds  # type: ignore[attr-defined]
        self._space = TanhSpace(low, high, TANH_LIMIT)

    def run(self, images: Tensor, classes: Tensor) -> AttackResult:
        """Search for every image; see ``L2CarliniWagner.search``."""
        result = AttackResult.of_failures(images, classes)
        state = self._begin(images, classes)
        while len(state.row):
            for _ in range(self._settings.interval):
                self._advance(state)
            done = self._settle(state)
            if bool(done.any()):
                result.store(state.select(done.nonzero().flatten()))
                state = state.select((~done).nonzero().flatten())
        return result

    def _begin(self, images: Tensor, classes: Tensor) -> SearchState:
        anchor = self._space.points(images)
        endless = torch.full((len(images),), INFINITY, dtype=images.dtype, device=images.device)
        return SearchState(
            row=torch.arange(len(images), device=images.device),
            source=images,
            anchor=anchor,
            reconstructed=self._space.pixels(anchor.tanh()),
            classes=classes,
            delta=torch.zeros_like(images),
            adam=AdamState.at_rest(anchor),
            round=torch.zeros_like(classes),
            bisection=ConstantBisection.start(images, self._settings.initial_const),
            found=torch.zeros_like(classes, dtype=torch.bool),
            floor=endless,
            checked=endless.clone(),
            best=images.clone(),
            best_norm=endless.clone(),
            best_class=torch.zeros_like(classes),
            evaluations=torch.zeros_like(classes),
            broken=torch.zeros_like(classes, dtype=torch.bool),
        )

    def _advance(self, state: SearchState) -> None:
        """Make one step of Adam in every row and keep the iterates that are better than all before."""
        tanh = (state.anchor + state.delta).tanh()
        images = self._space.pixels(tanh).requires_grad_()
        logits = self._model(images)
        gap = logit_margin(logits, state.classes, targeted=self._targeted)
        hinge = (self._settings.confidence - gap).clamp_min(0) * state.bisection.constant
        (gradient,) = torch.autograd.grad(hinge.sum(), images)
        images, logits, gap, hinge = images.detach(), logits.detach(), gap.detach(), hinge.detach()
        shift = images - state.reconstructed
        loss = hinge + shift.square().flatten(1).sum(dim=1)
        state.broken |= ~finite_rows(gradient, loss)
        torch.minimum(state.floor, loss, out=state.floor)
        self._keep_better(state, images, logits, gap)
        gradient.add_(shift, alpha=2).mul_(self._space.slope(tanh))
        state.delta.sub_(state.adam.move(gradient, self._settings.step_size))
        state.evaluations += 1

    def _keep_better(self, state: SearchState, images: Tensor, logits: Tensor, gap: Tensor) -> None:
        slack = ROUNDING_MARGIN * (1 + logits.abs().amax(dim=1))
        success = gap > self._settings.confidence + slack
        norm = (images - state.source).flatten(1).norm(dim=1)
        better = success & (norm < state.best_norm)
        state.found |= success
        state.best_norm = torch.where(better, norm, state.best_norm)
        state.best_class = torch.where(better, logits.argmax(dim=1), state.best_class)
        state.best = torch.where(per_row(better, images), images, state.best)

    def _settle(self, state: SearchState) -> Tensor:
        """Start the next round in rows whose round has ended; return which rows are done, bool ``(n,)``."""
        ended = state.adam.step >= self._settings.steps
        if self._settings.abort_early:
            wanted = 1 - PROGRESS_PER_STEP * self._settings.interval
            ended |= ~(state.floor <= wanted * state.checked)
        state.checked = state.floor.clone()
        state.round = state.round + ended
        last = state.round == self._settings.rounds - 1 if self._settings.rounds >= ROUNDS_FOR_LARGEST_CONST else None
        state.bisection.narrow(state.found, ended=ended, last=last)
        _restart(state, ended)
        return state.broken | (ended & (state.bisection.pinned() | (state.round >= self._settings.rounds)))


def _restart(state: SearchState, ended: Tensor) -> None:
    """Send rows back to their source image."""
    state.delta.mul_(per_row(~ended, state.delta))
    state.adam.restart(ended)
    state.found &= ~ended
    state.floor = torch.where(ended, INFINITY, state.floor)
    state.checked = torch.where(ended, INFINITY, state.checked)
