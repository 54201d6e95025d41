"""A small convolutional network that is cheap to train adversarially."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from torch import Tensor, nn

STRIDED_LAYERS = ("convolutions.relu1", "convolutions.relu2", "dense.relu1")
POSITIONS, STRIDE = 7, 4


class StridedNetwork(nn.Module):
    """Two strided 4x4 convolutions and two fully connected layers; 166,410 weights for ten classes of 28 x 28 images.

    Source: Wong, Rice, Kolter, "Fast is better than free: Revisiting adversarial training", ICLR 2020 (the MNIST
    network). Where the second convolution gives other than 7 x 7 positions, they are averaged to so many.

    Attributes:
        head_name: Name of the module that gives the logits.
        default_layers: Names of the layers read for trajectories, in network order.
    """

    head_name: ClassVar[str] = "dense.fc2"

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_channels: int = 1,
        image_shape: tuple[int, int] = (28, 28),
        width: int = 16,
        hidden: int = 100,
    ) -> None:
        """Build the network.

        Args:
            num_classes: Number of classes C.
            in_channels: Channels of the images.
            image_shape: Height and width of the images.
            width: Channels of the first convolution; the second has twice as many.
            hidden: Width of the first fully connected layer.
        """
        super().__init__()
        self.default_layers = STRIDED_LAYERS
        self.convolutions = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv1=nn.Conv2d(in_channels, width, 4, stride=2, padding=1),
                relu1=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
                relu2=nn.ReLU(inplace=True),
                pool=_pool(image_shape),
            )
        )
        self.dense = nn.Sequential(
            OrderedDict[str, nn.Module](
                fc1=nn.Linear(2 * width * POSITIONS**2, hidden),
                relu1=nn.ReLU(inplace=True),
                fc2=nn.Linear(hidden, num_classes),
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """Classify images ``(N, in_channels, H, W)``; return logits ``(N, C)``."""
        logits: Tensor = self.dense(self.convolutions(images).flatten(1))
        return logits


def _pool(image_shape: tuple[int, int]) -> nn.Module:
    """Average to the positions that the first fully connected layer takes, where there are others."""
    fits = all(size // STRIDE == POSITIONS for size in image_shape)
    return nn.Identity() if fits else nn.AdaptiveAvgPool2d(POSITIONS)
