"""The network as foolbox sees it, with a count of what an attack spends on it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from eagerpy.astensor import astensor, astensor_
from foolbox.attacks.base import MinimizationAttack, get_criterion, raise_if_kwargs, verify_input_bounds
from foolbox.criteria import Misclassification, TargetedMisclassification
from foolbox.models.pytorch import PyTorchModel
from torch import Tensor, nn

from adv_detect.algorithms.attacks.result import AttackResult
from adv_detect.algorithms.finite import finite_rows


class CountingModel(PyTorchModel):
    """A foolbox model that counts gradient evaluations and keeps the logits of the last call.

    The counting is done by an object apart: a model that held a method of its own would keep its last batch of images
    in memory until Python looks for cycles.
    """

    def __init__(self, network: nn.Module, bounds: tuple[float, float], device: torch.device) -> None:
        """Wrap a frozen network in evaluation mode whose pixel range is ``bounds``."""
        super().__init__(network, bounds=bounds, device=device)
        self._counter = _Counter(self._model, device)
        self._model = self._counter

    def watch(self, count: int) -> None:
        """Note from now on which of ``count`` images have logits or gradients that are not finite on the way."""
        self._counter.broken = torch.zeros(count, dtype=torch.bool, device=self._counter.device)

    @property
    def broken(self) -> Tensor:
        """Rows seen with logits or gradients that are not finite, bool; looked at where whole batches are called."""
        assert self._counter.broken is not None, "call watch first"
        return self._counter.broken

    @property
    def gradient_rows(self) -> int:
        """Images that went forward with a gradient wanted, all calls together."""
        return self._counter.gradient_rows

    def logits_at(self, images: Tensor) -> Tensor:
        """Return the logits of images ``(N, channels, H, W)``, of the last call where it was for these images."""
        last = self._counter.last
        if last is not None and torch.equal(last[0], images):
            return last[1]
        return self._counter(images).detach()


class _Counter:
    """Calls a network, counts, and remembers the last images and logits."""

    def __init__(self, forward: Callable[..., Any], device: torch.device) -> None:
        self._forward = forward
        self.device = device
        self.gradient_rows = 0
        self.last: tuple[Tensor, Tensor] | None = None
        self.broken: Tensor | None = None

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self._forward(images)
        self.last = (images.detach(), logits.detach())
        if images.requires_grad:
            self.gradient_rows += len(images)
            if self.broken is not None and len(images) == len(self.broken):
                self._watch(images, logits)
        return logits

    def _watch(self, images: Tensor, logits: Tensor) -> None:
        broken = self.broken
        assert broken is not None
        broken |= ~finite_rows(logits)

        def note(gradient: Tensor) -> None:
            broken.logical_or_(~finite_rows(gradient))

        images.register_hook(note)  # type: ignore[no-untyped-call]


def make_criterion(labels: Tensor, targets: Tensor | None) -> Any:
    """Return foolbox's criterion: misclassified, or classified as the target when there are targets."""
    return Misclassification(labels) if targets is None else TargetedMisclassification(targets)


class OwnSearch(MinimizationAttack):
    """An attack of this project that searches the smallest perturbation, in foolbox's interface."""

    @abstractmethod
    def search(self, model: Any, images: Tensor, classes: Tensor, *, targeted: bool) -> AttackResult:
        """Search the smallest adversarial perturbation of each image.

        Args:
            model: A foolbox model of a frozen network.
            images: Source images ``(N, channels, H, W)`` within the model's bounds.
            classes: Classes to reach when targeted, to leave otherwise, int64 ``(N,)``.
            targeted: Whether ``classes`` are targets.

        Returns:
            The successful image of smallest L2 perturbation, or the source image where there was none.
        """

    def run(self, model: Any, inputs: Any, criterion: Any, *, early_stop: float | None = None, **kwargs: Any) -> Any:
        """Attack images within the model's bounds, of any kind that foolbox takes; failures give back their source."""
        raise_if_kwargs(kwargs)
        images, restore = astensor_(inputs)
        verify_input_bounds(images, model)
        judge: Any = get_criterion(criterion)
        targeted = isinstance(judge, TargetedMisclassification)
        classes = judge.target_classes if targeted else judge.labels
        return restore(astensor(self.search(model, images.raw, classes.raw, targeted=targeted).images))
