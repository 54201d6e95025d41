"""Preprocessing of images inside the model, before the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adv_detect.errors import ConfigurationError
from adv_detect.params import PreprocessingParams

COLOUR_CHANNELS = 3


class Preprocessing(nn.Module):
    """Differentiable map ``(order(images) * scale - mean) / std``, channel by channel.

    The constants are buffers, so they follow the module to its device; they are not part of its state dict.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, params: PreprocessingParams) -> None:
        """Build the map; ``mean`` and ``std`` stand in the order given by ``channel_order``."""
        super().__init__()
        self.params = params
        self.register_buffer("mean", _channel_values(params.mean), persistent=False)
        self.register_buffer("std", _channel_values(params.std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Preprocess RGB or grey images ``(N, channels, H, W)``; the result has the same shape, float32 or float64."""
        images = images if images.dtype in (torch.float32, torch.float64) else images.float()
        outputs = images.flip(1) if self.params.channel_order == "bgr" else images
        if self.params.scale != 1.0:
            outputs = outputs * self.params.scale
        if self.mean is not None:
            outputs = outputs - self.mean
        return outputs if self.std is None else outputs / self.std


def check_channels(params: PreprocessingParams, channels: int) -> None:
    """Check that the preprocessing fits images of this many channels.

    Args:
        params: The preprocessing.
        channels: Channels of the images.

    Raises:
        ConfigurationError: When ``mean`` or ``std`` has another length, or BGR is asked of other than 3 channels.
    """
    for key, values in (("mean", params.mean), ("std", params.std)):
        if values is not None and len(values) not in (1, channels):
            raise ConfigurationError(
                f"network.preprocessing.{key}: expected 1 or {channels} values, one per channel, got {list(values)}"
            )
    if params.channel_order == "bgr" and channels != COLOUR_CHANNELS:
        raise ConfigurationError(
            f"network.preprocessing.channel_order: 'bgr' needs images of 3 channels, these have {channels}; use 'rgb'"
        )


def _channel_values(values: tuple[float, ...] | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
