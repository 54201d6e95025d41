"""Projected limited-memory BFGS on a batch: every image has its own memory, active set and step length."""

from __future__ import annotations

import torch
from torch import Tensor

from adv_detect.algorithms.attacks.deep_features_objective import Box, Evaluation

SUFFICIENT_DECREASE = 1e-4
"""Armijo's constant."""
SHRINK_LEAST, SHRINK_MOST = 0.1, 0.5
"""Limits of the factor by which a refused step is shortened."""
MAX_REFUSALS = 12
"""Refused trials in a row after which the memory is dropped, and without memory the image is finished."""
CURVATURE_FLOOR = 1e-10
"""Least cosine of step and gradient change for a pair to be used."""
FIRST_STEP = 0.05
"""Mean move of a free pixel, as a share of the box's radius, of a step without memory."""
BOUND_TOLERANCE = 1e-6
"""Distance from a bound, as a share of the radius, at which a pixel counts as lying on it."""
STALL_LIMIT = 10
"""Accepted steps in a row with a relative gain below the tolerance, after which an image is finished."""
_PER_IMAGE = ("point", "loss", "gradient", "direction", "step", "refusals", "stalls", "count", "done")


class LbfgsSteps:
    """Two-metric projection (Bertsekas, 1982) with the two-loop recursion (Nocedal, 1980) on the free pixels.

    Pixels on a bound whose gradient points outwards are held; the recursion runs on the others, with curvature pairs
    restricted to them. The step is projected into the box and accepted by Armijo's rule along the projected path.
    Images do not wait for each other: while one shortens its step, another already takes its next.
    """

    def __init__(self, *, history: int, tolerance: float) -> None:
        """Set up a solver with ``history`` curvature pairs and a relative ``tolerance`` of the loss."""
        self.history = history
        self.tolerance = tolerance
        self.started = False
        self.moves = torch.empty(0)
        self.changes = torch.empty(0)

    def advance(self, points: Tensor, evaluation: Evaluation, box: Box) -> Tensor:
        """Accept or refuse the trial points, and give the next ones."""
        trial = points.flatten(1)
        gradient = evaluation.gradient.flatten(1)
        if not self.started:
            self._start(trial, evaluation.loss, gradient)
            accepted = torch.ones_like(self.done)
        else:
            accepted = self._judge(trial, evaluation.loss)
            self._accept(accepted, trial, evaluation.loss, gradient)
        self._redirect(accepted, box)
        moved = self.point + self.step[:, None] * self.direction
        return box.project(moved.view_as(points))

    def finished(self) -> Tensor | None:
        """Return the images without a descent direction or without progress, bool ``(n,)``."""
        return self.done

    def select(self, kept: Tensor) -> None:
        """Keep the state of some images."""
        for name in _PER_IMAGE:
            setattr(self, name, getattr(self, name)[kept])
        self.moves, self.changes = self.moves[:, kept], self.changes[:, kept]

    def _start(self, point: Tensor, loss: Tensor, gradient: Tensor) -> None:
        images = len(point)
        whole = torch.zeros(images, dtype=torch.int64, device=point.device)
        self.point, self.loss, self.gradient = point, loss, gradient
        self.direction, self.step = torch.zeros_like(point), torch.ones_like(loss)
        self.refusals, self.stalls, self.count = whole, whole.clone(), whole.clone()
        self.done = torch.zeros(images, dtype=torch.bool, device=point.device)
        self.moves = point.new_zeros((self.history, *point.shape))
        self.changes = torch.zeros_like(self.moves)
        self.started = True

    def _judge(self, trial: Tensor, loss: Tensor) -> Tensor:
        """Apply Armijo's rule; where it fails, shorten the step by quadratic interpolation."""
        slope = ((trial - self.point) * self.gradient).sum(dim=1).clamp(max=0.0)
        accepted = (loss < self.loss) & (loss <= self.loss + SUFFICIENT_DECREASE * slope)
        rise = 2 * (loss - self.loss - slope)
        factor = (-slope / rise.clamp_min(torch.finfo(rise.dtype).tiny)).clamp(SHRINK_LEAST, SHRINK_MOST)
        self.step = torch.where(accepted, torch.ones_like(self.step), self.step * factor)
        self.refusals = torch.where(accepted, 0, self.refusals + 1)
        return accepted

    def _accept(self, accepted: Tensor, trial: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Move to the accepted points and remember how the gradient changed."""
        rows = torch.nonzero(accepted).squeeze(1)
        slots = self.count[rows] % self.history
        self.moves[slots, rows] = trial[rows] - self.point[rows]
        self.changes[slots, rows] = gradient[rows] - self.gradient[rows]
        gain = (self.loss - loss) / self.loss.abs().clamp_min(torch.finfo(loss.dtype).tiny)
        stalled = torch.where(gain < self.tolerance, self.stalls + 1, 0)
        self.stalls = torch.where(accepted, stalled, self.stalls)
        self.count = self.count + accepted.long()
        self.point = torch.where(accepted[:, None], trial, self.point)
        self.gradient = torch.where(accepted[:, None], gradient, self.gradient)
        self.loss = torch.where(accepted, loss, self.loss)

    def _redirect(self, accepted: Tensor, box: Box) -> None:
        """Compute new directions where a step was accepted or the line search has failed."""
        failed = self.refusals >= MAX_REFUSALS
        hopeless = failed & (self.count == 0)
        self.count = torch.where(failed, 0, self.count)
        self.step = torch.where(failed, torch.ones_like(self.step), self.step)
        self.refusals = torch.where(failed, 0, self.refusals)
        rows = torch.nonzero(accepted | failed).squeeze(1)
        free = self._free(rows, box)
        if len(rows):
            self.direction = self.direction.index_copy(0, rows, self._directions(rows, free, box.radius))
        still = self.direction.abs().amax(dim=1) == 0
        self.done = hopeless | still | (self.stalls >= STALL_LIMIT)

    def _free(self, rows: Tensor, box: Box) -> Tensor:
        """Find the pixels that may move downhill, bool ``(k, P)``."""
        point, gradient = self.point[rows], self.gradient[rows]
        margin = BOUND_TOLERANCE * box.radius
        held_low = (point <= box.lower[rows].flatten(1) + margin) & (gradient > 0)
        held_high = (point >= box.upper[rows].flatten(1) - margin) & (gradient < 0)
        return ~(held_low | held_high)

    def _directions(self, rows: Tensor, free: Tensor, radius: float) -> Tensor:
        """Run the two-loop recursion; without usable pairs take a scaled gradient step. Returns ``(k, P)``."""
        free = free.to(self.gradient)
        gradient = self.gradient[rows] * free
        result = gradient.clone()
        used: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        scale = self._first_scale(gradient, free, radius)
        for age in range(min(self.history, int(self.count[rows].max()))):
            move, change, inverse, size = self._pair(rows, age, free)
            if not used:
                newest = torch.where(inverse > 0, 1 / (inverse * size).clamp_min(torch.finfo(size.dtype).tiny), scale)
                scale = newest
            alpha = inverse * (move * result).sum(dim=1)
            result.addcmul_(alpha[:, None], change, value=-1)
            used.append((move, change, inverse, alpha))
        result *= scale[:, None]
        for move, change, inverse, alpha in reversed(used):
            beta = inverse * (change * result).sum(dim=1)
            result.addcmul_((alpha - beta)[:, None], move)
        return self._descending(-result * free, gradient, free, radius)

    def _pair(self, rows: Tensor, age: int, free: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give the pair of a given age on the free pixels: move, change, 1 / (move . change) or 0, |change|^2."""
        slots = (self.count[rows] - 1 - age) % self.history
        move, change = self.moves[slots, rows].mul_(free), self.changes[slots, rows].mul_(free)
        product, length = (move * change).sum(dim=1), torch.linalg.vector_norm(change, dim=1)
        floor = CURVATURE_FLOOR * torch.linalg.vector_norm(move, dim=1) * length
        usable = (self.count[rows] > age) & (product > floor)
        inverse = torch.where(usable, 1 / torch.where(usable, product, torch.ones_like(product)), 0.0)
        return move, change, inverse, length.square()

    @staticmethod
    def _first_scale(gradient: Tensor, free: Tensor, radius: float) -> Tensor:
        """Give the factor ``(k,)`` that makes a gradient step move free pixels by ``FIRST_STEP`` radii on average."""
        tiny = torch.finfo(gradient.dtype).tiny
        mean = gradient.abs().sum(dim=1) / free.sum(dim=1).clamp_min(1)
        return torch.where(mean > tiny, FIRST_STEP * radius / mean.clamp_min(tiny), 0.0)

    def _descending(self, direction: Tensor, gradient: Tensor, free: Tensor, radius: float) -> Tensor:
        """Replace directions that do not descend (rounding, too few free pixels) by gradient steps."""
        descends = (direction * gradient).sum(dim=1) < 0
        fallback = -self._first_scale(gradient, free, radius)[:, None] * gradient
        return torch.where(descends[:, None], direction, fallback)
