"""A twin for a network of one's own, trained on clean images in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from adv_detect.algorithms.fitting import FitSettings
from adv_detect.algorithms.twin_training import fit_twin
from adv_detect.errors import ConfigurationError
from adv_detect.networks.finite import check_finite
from adv_detect.networks.target import TargetNetwork
from adv_detect.networks.twin import build_twin
from adv_detect.params import SAME, TwinTrainingParams

COPY: Mapping[str, Any] = {
    "network": {"name": SAME},
    "epochs": 5,
    "steps": 3,
    "learning_rate": 3e-4,
    "batch_size": 32,
    "frozen_statistics": True,
}
RELATIVE_EPSILON = 8 / 255


class ImagesInMemory:
    """Images and labels as an image set.

    Args:
        images: Shape ``(N, channels, H, W)``, within the bounds.
        classes: int64 ``(N,)``.
        target: The network, whose bounds and class names count.
    """

    def __init__(self, images: Tensor, classes: Tensor, target: TargetNetwork) -> None:
        low, high = target.spec.bounds
        self._images = ((images - low) / (high - low)).clamp(0, 1)
        self.labels = classes
        self.class_names = target.spec.class_names
        self.source_ids: Sequence[str] = tuple(f"image {number}" for number in range(len(images)))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return image ``(channels, H, W)`` in [0, 1], and its label."""
        return self._images[index], int(self.labels[index])

    def read_many(self, indices: Sequence[int]) -> Tensor:
        """Return several images."""
        return self._images[torch.as_tensor(indices, dtype=torch.int64)]


def fit_own_twin(
    target: TargetNetwork,
    images: Tensor,
    classes: Tensor,
    *,
    params: Mapping[str, Any] | None,
    seed: int,
    device: torch.device,
) -> TargetNetwork:
    """Train a second network adversarially.

    Args:
        target: The network that it stands beside, which stays as it is.
        images: Shape ``(N, channels, H, W)``, within its bounds.
        classes: int64 ``(N,)``.
        params: Keys as under ``twin_training``; what is left out is as for a copy of the network.
        seed: Decides everything random.
        device: Where to train.

    Returns:
        The twin, frozen, on the CPU.

    Raises:
        ConfigurationError: There is no network for it.
    """
    low, high = target.spec.bounds
    chosen = TwinTrainingParams.model_validate({**COPY, "epsilon": RELATIVE_EPSILON * (high - low), **(params or {})})
    if chosen.network is None:
        raise ConfigurationError("twin: expected a network, got null; leave it out for a copy of yours")
    twin = build_twin(target, chosen.network, head=chosen.losses[0], seed=seed)
    settings = FitSettings(seed=seed, device=device, progress=False)
    fit_twin(twin, ImagesInMemory(images, classes, target), None, params=chosen, settings=settings)
    check_finite(twin.network, twin.network.state_dict(), "twin")
    return twin.freeze().cpu()
