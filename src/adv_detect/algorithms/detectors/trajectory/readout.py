"""Base of all trajectory detectors: shape checks, standardisation in the state dict, scoring in blocks."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from adv_detect.algorithms.detectors.scoring import SCORE_BLOCK, score_in_blocks
from adv_detect.errors import DataError, NotFittedError

STD_FLOOR = 1e-6
"""Smallest standard deviation a distance is divided by, so that a constant distance does not become infinite."""


class TrajectoryReadout(nn.Module):
    """Reads standardised trajectories and gives one logit per image; higher means more likely adversarial.

    Trajectories arrive already ordered and cut. The buffers ``mean`` and ``std``, of shape (L, K), are part of
    the state dict. A ``std`` of zero marks a detector whose standardisation has not been fitted.

    Attributes:
        kind: Name of the detector in the configuration.
        layers: L, or None where any number of layers is accepted.
        classes: K, or None where any number of classes is accepted.
        mean: Per layer and class, subtracted from the distances.
        std: Per layer and class, what the centred distances are divided by.
    """

    kind: ClassVar[str]
    mean: Tensor
    std: Tensor

    def __init__(self, layers: int | None, classes: int | None) -> None:
        super().__init__()
        self.layers = layers
        self.classes = classes
        shape = (layers or 1, classes or 1)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.zeros(shape))
        self._fitted = False
        self.register_load_state_dict_post_hook(_note_whether_fitted)  # type: ignore[no-untyped-call]

    @property
    def fitted(self) -> bool:
        """Tell whether the standardisation has been fitted, set or loaded."""
        return self._fitted

    def fit_standardisation(self, trajectories: Tensor) -> None:
        """Take mean and standard deviation per layer and class from training trajectories.

        Args:
            trajectories: Shape (N, L, K), any float dtype, N >= 1, finite.

        Raises:
            DataError: The shape does not fit, there are no rows, or a value is not finite.
        """
        self._check(trajectories)
        if len(trajectories) == 0:
            raise DataError("expected at least one trajectory to fit the standardisation on, got none")
        if not torch.isfinite(trajectories).all():
            raise DataError("expected finite trajectories to fit the standardisation on, got NaN or infinity")
        std, mean = torch.std_mean(trajectories.detach().double(), dim=0, correction=0)
        self.set_standardisation(mean, std)

    def set_standardisation(self, mean: Tensor, std: Tensor) -> None:
        """Use a known mean and standard deviation; the latter is floored at ``STD_FLOOR``.

        Args:
            mean: Shape (L, K), or one that broadcasts to it.
            std: Shape (L, K), or one that broadcasts to it.
        """
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(STD_FLOOR))
        self._fitted = True

    def forward(self, trajectories: Tensor) -> Tensor:
        """Score trajectories; gradients reach the trajectories.

        Args:
            trajectories: Shape (N, L, K), any float dtype.

        Returns:
            Logits (no sigmoid), shape (N,), in the dtype of the detector's weights.

        Raises:
            DataError: The shape does not fit.
            NotFittedError: The standardisation has not been fitted.
        """
        self._check(trajectories)
        if not self._fitted:
            raise NotFittedError(
                f"expected a fitted {self.kind} detector, got one without standardisation; "
                "call fit_standardisation with training trajectories or load a state dict first"
            )
        return self.logits((trajectories.to(self.mean.dtype) - self.mean) / self.std)

    @abstractmethod
    def logits(self, standardised: Tensor) -> Tensor:
        """Map standardised trajectories of shape (N, L, K) to logits of shape (N,)."""

    def _check(self, trajectories: Tensor) -> None:
        shape = tuple(trajectories.shape)
        fits = len(shape) == 3 and self.layers in {None, shape[1]} and self.classes in {None, shape[2]}
        if not fits:
            expected = f"(N, {self.layers or 'L'}, {self.classes or 'C'})"
            raise DataError(
                f"expected trajectories of shape {expected} for this {self.kind} detector, got {shape}; "
                "compute them with the layers and the number of classes that the detector was built for"
            )


def _note_whether_fitted(module: nn.Module, _incompatible: object) -> None:
    if isinstance(module, TrajectoryReadout):
        module._fitted = bool((module.std > 0).all())


def score_trajectories(detector: nn.Module, trajectories: Tensor, *, block: int = SCORE_BLOCK) -> Tensor:
    """Score any number of trajectories in evaluation mode, without gradients, block by block.

    Args:
        detector: A detector; its training mode is restored afterwards.
        trajectories: Shape (N, L, K), on any device: blocks move to the detector's.
        block: Trajectories scored at once; bounds the memory.

    Returns:
        Logits, shape (N,), on the device of ``trajectories``.
    """
    return score_in_blocks(detector, torch.split(trajectories, block)).to(trajectories.device)
