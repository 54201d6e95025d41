"""The network as foolbox sees it, with a count of what an attack spends on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from foolbox.criteria import Misclassification, TargetedMisclassification
from foolbox.models.pytorch import PyTorchModel
from torch import Tensor, nn


class CountingModel(PyTorchModel):
    """A foolbox model that counts gradient evaluations and keeps the logits of the last call.

    Attributes:
        gradient_rows: Images that went forward with a gradient wanted, all calls together.
    """

    def __init__(self, network: nn.Module, bounds: tuple[float, float], device: torch.device) -> None:
        """Wrap a frozen network in evaluation mode whose pixel range is ``bounds``."""
        super().__init__(network, bounds=bounds, device=device)
        self.gradient_rows = 0
        self._last: tuple[Tensor, Tensor] | None = None
        self._forward: Callable[..., Any] = self._model
        self._model = self._counted

    def logits_at(self, images: Tensor) -> Tensor:
        """Return the logits of images ``(N, channels, H, W)``, of the last call where it was for these images."""
        if self._last is not None and torch.equal(self._last[0], images):
            return self._last[1]
        return self._counted(images).detach()

    def _counted(self, images: Tensor) -> Tensor:
        logits: Tensor = self._forward(images)
        self._last = (images.detach(), logits.detach())
        if images.requires_grad:
            self.gradient_rows += len(images)
        return logits


def make_criterion(labels: Tensor, targets: Tensor | None) -> Any:
    """Return foolbox's criterion: misclassified, or classified as the target when there are targets."""
    return Misclassification(labels) if targets is None else TargetedMisclassification(targets)
