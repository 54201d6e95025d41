"""Gradient-descent attacks whose images leave the batch as soon as they are done.

Drives any foolbox ``BaseGradientDescent`` attack through its own hooks (loss, optimiser, random start, gradient,
normalisation, projection), so that an iterate is the one foolbox computes. Departures from foolbox: with
``return_early`` each image ends at its first successful iterate; the logits of the gradient's forward pass decide,
so a check costs no further pass. An image whose gradient or logits are NaN or infinite fails and gives back its source.
"""

from __future__ import annotations

from typing import Any

import torch
from eagerpy.astensor import astensor
from eagerpy.tensor.tensor import Tensor as EagerTensor
from torch import Tensor

from adv_detect.algorithms.attacks.foolbox_model import CountingModel
from adv_detect.algorithms.attacks.result import AttackResult
from adv_detect.algorithms.finite import finite_rows, replace_rows


def run_gradient_attack(
    attack: Any,
    model: CountingModel,
    images: Tensor,
    classes: Tensor,
    *,
    targeted: bool,
    epsilon: float,
    return_early: bool,
) -> AttackResult:
    """Attack a batch of images by gradient descent.

    Args:
        attack: A foolbox ``BaseGradientDescent`` attack.
        model: The network.
        images: Source images ``(N, channels, H, W)`` within the model's bounds.
        classes: Classes to reach when targeted, to leave otherwise, int64 ``(N,)``.
        targeted: Whether ``classes`` are targets.
        epsilon: Size of the perturbation in the attack's norm.
        return_early: Give each image's first successful iterate instead of the last one. The source image, or
            the random start, does not count as an iterate.

    Returns:
        The last iterate of each image, successful or not; the source image where a number was not finite.
    """
    descent = _Descent(attack, model, images, classes, targeted=targeted, epsilon=epsilon)
    for step in range(attack.steps):
        gradients = descent.gradients()
        if return_early and step > 0:
            gradients = descent.drop_done(gradients)
            if not len(descent.rows):
                break
        descent.move(gradients)
    return descent.finish()


class _Descent:
    """The images still attacked, and what has become of the others.

    Attributes:
        rows: Positions of the images still attacked, int64 ``(n,)``.
    """

    def __init__(
        self, attack: Any, model: CountingModel, images: Tensor, classes: Tensor, *, targeted: bool, epsilon: float
    ) -> None:
        self.rows = torch.arange(len(images), device=images.device)
        self._attack, self._model = attack, model
        self._epsilon, self._targeted = epsilon, targeted
        self._classes = classes
        self._sources = astensor(images)
        self._optimizer = attack.get_optimizer(self._sources, _step_size(attack, epsilon))
        self._iterates = self._start()
        self._loss = attack.get_loss_fn(model, astensor(classes))
        self._originals, self._images = images, images.clone()
        self._found = torch.zeros_like(classes, dtype=torch.bool)
        self._predicted = torch.zeros_like(classes)
        self._broken = torch.zeros_like(self._found)
        self._evaluations = torch.zeros_like(classes)

    def gradients(self) -> Any:
        """Evaluate the loss gradient at the current iterates; numbers that are not finite count as 0 and are noted."""
        _, gradients = self._attack.value_and_grad(self._loss, self._iterates)
        self._evaluations[self.rows] += 1
        self._broken[self.rows] |= ~finite_rows(gradients.raw)
        return astensor(gradients.raw.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))

    def move(self, gradients: Any) -> None:
        """Make one step."""
        bounds = self._model.bounds
        directions = self._attack.normalize(gradients, x=self._iterates, bounds=bounds)
        sign = -1.0 if self._targeted else 1.0
        moved = self._iterates + sign * self._optimizer(directions)
        self._iterates = (self._attack.project(moved, self._sources, self._epsilon)).clip(*bounds)

    def drop_done(self, gradients: Any) -> Any:
        """Take images that have succeeded or broken out of the batch; return the gradients of the others."""
        done = self._record() | self._broken[self.rows]
        if not bool(done.any()):
            return gradients
        keep = (~done).nonzero().flatten()
        self.rows, self._classes = self.rows[keep], self._classes[keep]
        self._sources, self._iterates = self._sources[astensor(keep)], self._iterates[astensor(keep)]
        self._loss = self._attack.get_loss_fn(self._model, astensor(self._classes))
        _shrink(self._optimizer, len(done), keep)
        return gradients[astensor(keep)]

    def finish(self) -> AttackResult:
        """Judge the last iterate of the images that are left."""
        if len(self.rows):
            self._record()
        broken = self._broken & ~self._found
        if bool(broken.any()):
            self._images = replace_rows(self._images, self._originals, broken)
            self._predicted[broken] = self._model.logits_at(self._originals[broken]).argmax(dim=-1)
        return AttackResult(self._images, self._found, self._predicted, self._evaluations, broken)

    def _start(self) -> Any:
        if not self._attack.random_start:
            return self._sources
        return (self._attack.get_random_start(self._sources, self._epsilon)).clip(*self._model.bounds)

    def _record(self) -> Tensor:
        """Store the current iterates as results; return which of them are successful, bool ``(n,)``."""
        iterates: Tensor = self._iterates.raw
        logits = self._model.logits_at(iterates)
        predicted = logits.argmax(dim=-1)
        self._broken[self.rows] |= ~finite_rows(logits, iterates)
        fooled = predicted == self._classes if self._targeted else predicted != self._classes
        fooled &= ~self._broken[self.rows]
        self._images[self.rows] = iterates
        self._predicted[self.rows] = predicted
        self._found[self.rows] = fooled
        return fooled


def _step_size(attack: Any, epsilon: float) -> float:
    size: float = attack.rel_stepsize * epsilon if attack.abs_stepsize is None else attack.abs_stepsize
    return size


def _shrink(optimizer: Any, batch: int, keep: Tensor) -> None:
    """Cut the optimiser's per-image state (momentum, Adam's moments) down to the kept images."""
    for name, value in vars(optimizer).items():
        if isinstance(value, EagerTensor) and value.ndim and len(value) == batch:
            setattr(optimizer, name, value[astensor(keep)])
        elif isinstance(value, Tensor) and value.ndim and len(value) == batch:
            setattr(optimizer, name, value[keep])
