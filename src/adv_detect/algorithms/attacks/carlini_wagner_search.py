"""The search behind the Carlini-Wagner attack: Adam in tanh space, and bisection of the constant, per image.

All state is one row per image; rows advance through their rounds independently and leave the batch when done. The
host looks at the state at the checks only, never within.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from adv_detect.algorithms.attacks.result import AttackResult
from adv_detect.algorithms.finite import finite_rows

CHECKS_PER_ROUND = 10
SHORTEST_INTERVAL = 25
PROGRESS_PER_STEP = 1e-4
CONST_FACTOR = 10.0
LARGEST_CONST = 1e10
ROUNDS_FOR_LARGEST_CONST = 10
CONST_PRECISION = 0.5
TANH_LIMIT = 0.999999
ROUNDING_MARGIN = 1e-5
BETA1, BETA2, ADAM_EPSILON = 0.9, 0.999, 1e-8
INFINITY = float("inf")


@dataclass(frozen=True)
class SearchSettings:
    """How long and from where to search; see the attack's constructor."""

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
class SearchState:
    """One row per image still searched, n in all.

    Attributes:
        row: Position of the image in the result.
        source: Source image.
        anchor: The source in tanh space.
        reconstructed: The anchor back in the pixel range.
        classes: Class to reach or to leave.
        delta: Perturbation in tanh space.
        mean: Adam's first moment.
        variance: Adam's second moment.
        step: Steps made in this round, float.
        round: Rounds ended.
        const: Constant c of this round.
        lower: Largest constant that failed, 0 before.
        upper: Smallest constant that succeeded, infinite before.
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
    mean: Tensor
    variance: Tensor
    step: Tensor
    round: Tensor
    const: Tensor
    lower: Tensor
    upper: Tensor
    found: Tensor
    floor: Tensor
    checked: Tensor
    best: Tensor
    best_norm: Tensor
    best_class: Tensor
    evaluations: Tensor
    broken: Tensor

    def select(self, keep: Tensor) -> SearchState:
        """Return the kept rows, int64 positions ``(k,)``, as a new state."""
        return SearchState(**{one.name: getattr(self, one.name)[keep] for one in fields(self)})


class ConstantSearch:
    """Runs the search over a batch of images."""

    def __init__(self, model: Callable[[Tensor], Tensor], settings: SearchSettings, *, targeted: bool) -> None:
        """Take the model (its ``bounds`` are the pixel range), the settings and the meaning of the classes."""
        self._model = model
        self._settings = settings
        self._targeted = targeted
        self._low, self._high = model.bounds  # type: ignore[attr-defined]
        self._centre, self._half = (self._low + self._high) / 2, (self._high - self._low) / 2

    def run(self, images: Tensor, classes: Tensor) -> AttackResult:
        """Search for every image; see ``L2CarliniWagner.search``."""
        result = _empty_result(images, classes)
        state = self._begin(images, classes)
        while len(state.row):
            for _ in range(self._settings.interval):
                self._advance(state)
            done = self._settle(state)
            if bool(done.any()):
                _store(result, state.select(done.nonzero().flatten()))
                state = state.select((~done).nonzero().flatten())
        return result

    def _begin(self, images: Tensor, classes: Tensor) -> SearchState:
        anchor = ((images - self._centre) / self._half * TANH_LIMIT).arctanh()
        zeros = torch.zeros(len(images), dtype=images.dtype, device=images.device)
        return SearchState(
            row=torch.arange(len(images), device=images.device),
            source=images,
            anchor=anchor,
            reconstructed=anchor.tanh() * self._half + self._centre,
            classes=classes,
            delta=torch.zeros_like(images),
            mean=torch.zeros_like(images),
            variance=torch.zeros_like(images),
            step=zeros.clone(),
            round=torch.zeros_like(classes),
            const=torch.full_like(zeros, self._settings.initial_const),
            lower=zeros.clone(),
            upper=torch.full_like(zeros, INFINITY),
            found=torch.zeros_like(classes, dtype=torch.bool),
            floor=torch.full_like(zeros, INFINITY),
            checked=torch.full_like(zeros, INFINITY),
            best=images.clone(),
            best_norm=torch.full_like(zeros, INFINITY),
            best_class=torch.zeros_like(classes),
            evaluations=torch.zeros_like(classes),
            broken=torch.zeros_like(classes, dtype=torch.bool),
        )

    def _advance(self, state: SearchState) -> None:
        """Make one step of Adam in every row and keep the iterates that are better than all before."""
        tanh = (state.anchor + state.delta).tanh()
        images = (tanh * self._half + self._centre).clamp(self._low, self._high).requires_grad_()
        logits = self._model(images)
        gap = self._margin(logits, state.classes)
        hinge = (self._settings.confidence - gap).clamp_min(0) * state.const
        (gradient,) = torch.autograd.grad(hinge.sum(), images)
        images, logits, gap, hinge = images.detach(), logits.detach(), gap.detach(), hinge.detach()
        shift = images - state.reconstructed
        loss = hinge + shift.square().flatten(1).sum(dim=1)
        state.broken |= ~finite_rows(gradient, loss)
        torch.minimum(state.floor, loss, out=state.floor)
        self._keep_better(state, images, logits, gap)
        gradient.add_(shift, alpha=2).mul_((1 - tanh.square()) * self._half)
        _adam(state, gradient, self._settings.step_size)
        state.evaluations += 1

    def _margin(self, logits: Tensor, classes: Tensor) -> Tensor:
        """How far each row is beyond the decision boundary, in logits ``(n,)``; negative before it."""
        own = logits.gather(1, classes[:, None]).squeeze(1)
        other = logits.scatter(1, classes[:, None], -INFINITY).amax(dim=1)
        return own - other if self._targeted else other - own

    def _keep_better(self, state: SearchState, images: Tensor, logits: Tensor, gap: Tensor) -> None:
        slack = ROUNDING_MARGIN * (1 + logits.abs().amax(dim=1))
        success = gap > self._settings.confidence + slack
        norm = (images - state.source).flatten(1).norm(dim=1)
        better = success & (norm < state.best_norm)
        state.found |= success
        state.best_norm = torch.where(better, norm, state.best_norm)
        state.best_class = torch.where(better, logits.argmax(dim=1), state.best_class)
        state.best = torch.where(_per_row(better, images), images, state.best)

    def _settle(self, state: SearchState) -> Tensor:
        """Start the next round in rows whose round has ended; return which rows are done, bool ``(n,)``."""
        ended = state.step >= self._settings.steps
        if self._settings.abort_early:
            wanted = 1 - PROGRESS_PER_STEP * self._settings.interval
            ended |= ~(state.floor <= wanted * state.checked)
        state.checked = state.floor.clone()
        state.upper = torch.where(ended & state.found, state.const, state.upper)
        state.lower = torch.where(ended & ~state.found, state.const, state.lower)
        state.round = state.round + ended
        pinned = state.upper.isfinite() & (state.upper - state.lower <= CONST_PRECISION * state.upper)
        self._restart(state, ended)
        return state.broken | (ended & (pinned | (state.round >= self._settings.rounds)))

    def _restart(self, state: SearchState, ended: Tensor) -> None:
        state.const = torch.where(ended, self._next_const(state), state.const)
        kept = _per_row(~ended, state.delta)
        for tensor in (state.delta, state.mean, state.variance):
            tensor.mul_(kept)
        state.step.mul_(~ended)
        state.found &= ~ended
        state.floor = torch.where(ended, INFINITY, state.floor)
        state.checked = torch.where(ended, INFINITY, state.checked)

    def _next_const(self, state: SearchState) -> Tensor:
        """Ten times the constant until one succeeds, the largest one in the last round of ten; then the middle."""
        larger = (state.const * CONST_FACTOR).clamp_max(LARGEST_CONST)
        if self._settings.rounds >= ROUNDS_FOR_LARGEST_CONST:
            larger = torch.where(state.round == self._settings.rounds - 1, LARGEST_CONST, larger)
        return torch.where(state.upper.isfinite(), (state.lower + state.upper) / 2, larger)


def _adam(state: SearchState, gradient: Tensor, step_size: float) -> None:
    state.step += 1
    state.mean.lerp_(gradient, 1 - BETA1)
    state.variance.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
    correction = _per_row((1 - BETA2**state.step).sqrt(), gradient)
    size = _per_row(step_size / (1 - BETA1**state.step), gradient)
    spread = state.variance.sqrt().div_(correction).add_(ADAM_EPSILON)
    state.delta.sub_(state.mean / spread * size)


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def _empty_result(images: Tensor, classes: Tensor) -> AttackResult:
    return AttackResult(
        images=images.clone(),
        success=torch.zeros_like(classes, dtype=torch.bool),
        adversarial_class=torch.zeros_like(classes),
        gradient_evaluations=torch.zeros_like(classes),
    )


def _store(result: AttackResult, state: SearchState) -> None:
    result.images[state.row] = state.best
    result.success[state.row] = state.best_norm.isfinite()
    result.adversarial_class[state.row] = state.best_class
    result.gradient_evaluations[state.row] = state.evaluations
    result.non_finite[state.row] = state.broken & ~state.best_norm.isfinite()
