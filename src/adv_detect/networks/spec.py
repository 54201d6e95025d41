"""Description of a network under attack: what it takes, what it says, how its layers are read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from adv_detect.fields import Block, Number
from adv_detect.networks.readings import LayerReading
from adv_detect.params import PreprocessingParams
from adv_detect.pictures import PictureInput, Transform


class NetworkSpec(Block):
    """All it takes to build a target network again, without the configuration that made it.

    Attributes:
        name: Registered name or dotted path.
        arguments: Further arguments of the constructor.
        num_classes: Number of classes C.
        layers: Names of the layers read, relative to the inner network, in network order.
        readings: Channel axis and width of each layer; empty in a description of before they were found.
        output: Name or index of the logits among the network's outputs; None where that is clear.
        bounds: Lowest and highest pixel value.
        preprocessing: What happens to images before the network.
        class_names: Name of each class.
        image_shape: Channels, height and width.
        pictures: How a picture file becomes an image: resize, crop, colour; None where training pictures keep their
            size.
        head: Meaning of the logits: one distribution over the classes, or a yes or no for each class by itself.
        accuracy: Share of held-out images classified correctly, in [0, 1]; None when not measured.
        history: One row of figures per epoch, where the network was trained here.
    """

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    num_classes: int
    layers: tuple[str, ...]
    readings: tuple[LayerReading, ...] = ()
    output: str | int | None = None
    bounds: tuple[Number, Number]
    preprocessing: PreprocessingParams = PreprocessingParams()
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    pictures: Transform | None = None
    head: Literal["softmax", "one_vs_all"] = "softmax"
    accuracy: float | None = None
    history: tuple[dict[str, float], ...] = ()

    @property
    def picture_input(self) -> PictureInput:
        """Steps from a picture to the input of the network."""
        return PictureInput.of(self.pictures, self.image_shape, self.bounds)
