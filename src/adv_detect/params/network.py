"""Block ``network`` of ``parameters.yml``: the network under attack."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from adv_detect.fields import Arguments, Block, Number, PositiveNumber


class PreprocessingParams(Block):
    """Preprocessing inside the model, before the network: ``(order(images) * scale - mean) / std``.

    ``mean`` and ``std`` stand in the order given by ``channel_order``.
    """

    scale: PositiveNumber = 1.0
    channel_order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[Number, ...] | None = None
    std: tuple[PositiveNumber, ...] | None = None


class LayerParams(Block):
    """A layer whose channel axis is stated: ``channels`` counts from the axis of the images, 0, or from the end."""

    name: str
    channels: int | None = Field(None, ge=-3, le=3)

    @model_validator(mode="after")
    def _images_are_no_channels(self) -> LayerParams:
        if self.channels == 0:
            raise ValueError("channels: expected an axis from 1 or, from the end, from -1; 0 is the axis of the images")
        return self


class NetworkParams(Block):
    """The network under attack.

    ``output`` names the logits, by key, attribute or index, where the network gives more than them.
    """

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
