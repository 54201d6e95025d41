"""The small convolutional network for 28 x 28 grey images."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from torch import Tensor, nn

from adv_detect.errors import ConfigurationError

SMALL_LAYERS = ("convolutions.relu2", "convolutions.relu3", "convolutions.relu4", "dense.relu1", "dense.relu2")

HIDDEN = 200
DROPOUT = 0.5


class SmallNetwork(nn.Module):
    """Four 3x3 convolutions without padding, two poolings, three fully connected layers.

    Source: Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", ICML 2019
    (the MNIST network). Convolutions start from Kaiming's normal initialisation, the last layer from zero.

    Attributes:
        head_name: Name of the module that gives the logits.
        default_layers: Names of the layers read for trajectories, in network order.
    """

    head_name: ClassVar[str] = "dense.fc3"

    def __init__(self, *, num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> None:
        """Build the network.

        Args:
            num_classes: Number of classes C.
            in_channels: Channels of the images.
            image_size: Height and width of the images in pixels, at least 16.

        Raises:
            ConfigurationError: When the images are too small for the four convolutions.
        """
        super().__init__()
        side = ((image_size - 4) // 2 - 4) // 2
        if side < 1:
            raise ConfigurationError(f"image_size: expected at least 16 pixels, got {image_size}")
        self.default_layers = SMALL_LAYERS
        self.convolutions = _convolutions(in_channels)
        self.dense = _dense(64 * side * side, num_classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images ``(N, in_channels, H, W)``; return logits ``(N, C)``."""
        logits: Tensor = self.dense(self.convolutions(images).flatten(1))
        return logits


def _convolutions(in_channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(in_channels, 32, 3),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 32, 3),
            relu2=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv3=nn.Conv2d(32, 64, 3),
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(64, 64, 3),
            relu4=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
        )
    )


def _dense(width: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            fc1=nn.Linear(width, HIDDEN),
            relu1=nn.ReLU(),
            dropout=nn.Dropout(DROPOUT),
            fc2=nn.Linear(HIDDEN, HIDDEN),
            relu2=nn.ReLU(),
            fc3=nn.Linear(HIDDEN, num_classes),
        )
    )


def _initialise(network: SmallNetwork) -> None:
    for module in network.convolutions:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    for parameter in network.get_submodule(SmallNetwork.head_name).parameters():
        nn.init.zeros_(parameter)
