"""Block ``network`` of ``parameters.yml``: the network under attack."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from adv_detect.fields import Arguments, Block, Number, PositiveNumber


class PreprocessingParams(Block):
    """Preprocessing inside the model, before the network: ``(order(images) * scale - mean) / std``."""

    scale: PositiveNumber = 1.0
    """Factor of the pixels."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """As the network takes them; the images are RGB."""
    mean: tuple[Number, ...] | None = None
    """Of each channel, in the order of ``channel_order``; null = 0."""
    std: tuple[PositiveNumber, ...] | None = None
    """Of each channel, in the order of ``channel_order``; null = 1."""


class LayerParams(Block):
    """A layer whose channel axis is stated."""

    name: str
    """Module name."""
    channels: int | None = Field(None, ge=-3, le=3)
    """Axis of the channels, counted from the axis of the images, 0, or from the end; null = found."""

    @model_validator(mode="after")
    def _images_are_no_channels(self) -> LayerParams:
        if self.channels == 0:
            raise ValueError("channels: expected an axis from 1 or, from the end, from -1; 0 is the axis of the images")
        return self


class NetworkParams(Block):
    """The network under attack."""

    name: str = "small"
    arguments: Arguments = Field(default_factory=dict)
    checkpoint: str | None = None
    layers: tuple[str | LayerParams, ...] | None = None
    output: str | int | None = None
    bounds: tuple[Number, Number] = (0.0, 1.0)
    preprocessing: PreprocessingParams = PreprocessingParams()

    @model_validator(mode="after")
    def _bounds_ascend(self) -> NetworkParams:
        if self.bounds[0] >= self.bounds[1]:
            raise ValueError(f"bounds: expected low < high, got {list(self.bounds)}")
        return self
