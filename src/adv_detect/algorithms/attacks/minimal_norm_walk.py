"""The walk behind the minimal-norm attack: along the decision boundary to the point next to the source, per image.

All state is one row per image; a row leaves the batch once its plane says that nothing is left to gain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from adv_detect.algorithms.attacks.adam import Rows
from adv_detect.algorithms.attacks.boundary_plane import project_to_plane
from adv_detect.algorithms.attacks.margins import logit_margin, smooth_margin
from adv_detect.algorithms.attacks.result import AttackResult
from adv_detect.algorithms.finite import finite_rows

ROUNDING_MARGIN = 1e-5
SMALLEST_NORM = 1e-12
REACH = 0.5
"""Longest step after a success, as a share of the norm and before its decay."""
OVERSHOOT = 1.2
"""How far an image goes before its first success, over the way to the plane: planes of a curved boundary fall short."""
SMOOTHING = 0.1
"""Temperature of the smooth margin as a share of the source's margin, so that the scale of logits does not matter."""
LEAST_TEMPERATURE = 1e-6
MEMORY = 0.5
"""Weight of the former normals in the mean of normals."""
LEAST_AGREEMENT = 0.2
"""Least cosine between that mean and the newest normal that the distance to the plane is reckoned with."""
NEAR_BOUNDARY = 0.05
"""A plane tells how near the boundary comes only when found within this share of the norm from the boundary."""


@dataclass(frozen=True)
class WalkSettings:
    """Length and steps of the walk; see the attack's constructor."""

    steps: int
    stepsize: float
    pull: float
    final: float
    confidence: float
    tolerance: float

    def decay(self, step: int) -> float:
        """Return the factor of all step sizes at a step: a half cosine from 1 down to ``final``."""
        share = step / max(1, self.steps - 1)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * share)) / 2


@dataclass
class WalkState(Rows):
    """One row per image that still walks, n in all; images are flat, ``(n, D)``.

    Attributes:
        row: Position of the image in the result.
        source: Source image.
        point: Where the walk is.
        normal: Running mean of the unit gradients of the margin.
        classes: Class to reach or to leave.
        temperature: That of the smooth margin, 0 before the first look.
        best: Nearest success so far, the source before.
        best_norm: Its L2 distance, infinite before.
        best_class: Its predicted class.
        evaluations: Gradient evaluations spent.
        broken: Whether a gradient or a logit was NaN or infinite; such a row goes no further.
    """

    row: Tensor
    source: Tensor
    point: Tensor
    normal: Tensor
    classes: Tensor
    temperature: Tensor
    best: Tensor
    best_norm: Tensor
    best_class: Tensor
    evaluations: Tensor
    broken: Tensor


class BoundaryWalk:
    """Walks for a batch of images."""

    def __init__(self, model: Callable[[Tensor], Tensor], settings: WalkSettings, *, targeted: bool) -> None:
        """Take the model (its ``bounds`` are the pixel range), the settings and the meaning of the classes."""
        self._model = model
        self._settings = settings
        self._targeted = targeted
        self._low, self._high = model.bounds  # type: ignore[attr-defined]

    def run(self, images: Tensor, classes: Tensor) -> AttackResult:
        """Search for every image; see ``MinimalNorm.search``."""
        result = AttackResult.of_failures(images, classes)
        state = _begin(images, classes)
        for step in range(self._settings.steps):
            done = self._advance(state, images.shape[1:], self._settings.decay(step)) | state.broken
            if bool(done.any()):
                result.store(state.select(done.nonzero().flatten()))
                state = state.select((~done).nonzero().flatten())
            if not len(state.row):
                break
        result.store(state)
        return result

    def _advance(self, state: WalkState, shape: torch.Size, decay: float) -> Tensor:
        """Look where the boundary is and make a step; return which rows can gain no more, bool ``(n,)``."""
        gap, gradient = self._look(state, shape)
        length = gradient.norm(dim=1).clamp_min(SMALLEST_NORM)
        unit, missing = gradient / length[:, None], -gap / length
        tight = self._is_tight(state, unit, missing)
        normal = self._mean_normal(state, unit)
        missing = missing / (normal * unit).sum(dim=1).clamp_min(LEAST_AGREEMENT)
        found = state.best_norm.isfinite()
        missing = torch.where(found, missing, OVERSHOOT * missing)
        pull = found.to(state.point)[:, None] * (self._settings.pull * decay)
        reach = torch.where(found, REACH * decay * state.best_norm, self._settings.stepsize)
        move = self._project(torch.lerp(state.point, state.source, pull), normal, state.point, missing) - state.point
        shorter = (reach / move.norm(dim=1).clamp_min(SMALLEST_NORM)).clamp_max(1)
        state.point = state.point + move * shorter[:, None]
        return tight

    def _look(self, state: WalkState, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Evaluate the points and keep successes nearer than all before.

        Returns:
            Margins beyond what is wanted ``(n,)``, less a little so that who gets to 0 succeeds; and the gradients of
            smooth margins ``(n, D)``, in which the other classes count too.
        """
        points = state.point.view(-1, *shape).requires_grad_()
        logits = self._model(points)
        beyond = logit_margin(logits.detach(), state.classes, targeted=self._targeted)
        if not state.temperature.any():
            state.temperature = (SMOOTHING * beyond.abs()).clamp_min(LEAST_TEMPERATURE)
        smooth = smooth_margin(logits, state.classes, state.temperature, targeted=self._targeted)
        (gradient,) = torch.autograd.grad(smooth.sum(), points)
        state.point, logits, gradient = state.point.detach(), logits.detach(), gradient.flatten(1)
        state.evaluations += 1
        state.broken |= ~finite_rows(gradient, logits)
        beyond = beyond - self._settings.confidence
        slack = ROUNDING_MARGIN * (1 + logits.abs().amax(dim=1))
        self._keep_better(state, logits, beyond > slack)
        return beyond - 2 * slack, gradient

    def _keep_better(self, state: WalkState, logits: Tensor, success: Tensor) -> None:
        norm = (state.point - state.source).norm(dim=1)
        better = success & (norm < state.best_norm)
        state.best_norm = torch.where(better, norm, state.best_norm)
        state.best_class = torch.where(better, logits.argmax(dim=1), state.best_class)
        state.best = torch.where(better[:, None], state.point, state.best)

    def _mean_normal(self, state: WalkState, unit: Tensor) -> Tensor:
        """Count a unit normal ``(n, D)`` in; return the mean, of unit length.

        Where a network of ReLUs has an edge, its two sides take turns.
        """
        state.normal = torch.lerp(unit, state.normal, MEMORY)
        mean: Tensor = state.normal / state.normal.norm(dim=1).clamp_min(SMALLEST_NORM)[:, None]
        return mean

    def _project(self, points: Tensor, normals: Tensor, seen: Tensor, missing: Tensor) -> Tensor:
        """Project points onto the planes that lie ``missing`` (n,) beyond the points ``seen``, along unit normals."""
        offsets = (normals * seen).sum(dim=1) + missing
        return project_to_plane(points, normals, offsets, low=self._low, high=self._high)

    def _is_tight(self, state: WalkState, unit: Tensor, missing: Tensor) -> Tensor:
        """Tell where nothing is left to gain, bool ``(n,)``.

        That is where the point lies at the boundary, is as near as the best success, and both are hardly farther from
        the source than the plane that touches the boundary there.
        """
        tolerance = self._settings.tolerance
        norm = (state.point - state.source).norm(dim=1)
        near = (missing.abs() <= NEAR_BOUNDARY * norm) & (norm <= (1 + tolerance) * state.best_norm)
        rows = (near & state.best_norm.isfinite()).nonzero().flatten()
        done = torch.zeros_like(near)
        if len(rows):  # few: the projection costs as much as a step
            source = state.source[rows]
            touching = self._project(source, unit[rows], state.point[rows], missing[rows])
            farthest = torch.maximum(norm, state.best_norm)[rows]
            done[rows] = (touching - source).norm(dim=1) >= (1 - tolerance) * farthest
        return done


def _begin(images: Tensor, classes: Tensor) -> WalkState:
    source = images.flatten(1)
    return WalkState(
        row=torch.arange(len(images), device=images.device),
        source=source,
        point=source.clone(),
        normal=torch.zeros_like(source),
        classes=classes,
        temperature=torch.zeros_like(source[:, 0]),
        best=source.clone(),
        best_norm=torch.full_like(source[:, 0], torch.inf),
        best_class=torch.zeros_like(classes),
        evaluations=torch.zeros_like(classes),
        broken=torch.zeros_like(classes, dtype=torch.bool),
    )
