"""The wide residual network for 32 x 32 colour images."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor, nn

from adv_detect.errors import ConfigurationError

DEPTH = 34
WIDEN = 10
STEM_WIDTH = 16


def wide_layers(depth: int = DEPTH) -> tuple[str, ...]:
    """Name the layers read for trajectories.

    Args:
        depth: Depth of the network, ``6 * blocks per stage + 4``.

    Returns:
        The second ReLU of each block and the pooled output, in network order.
    """
    blocks = _blocks_per_stage(depth)
    return (*(f"stages.{stage}.{block}.relu2" for stage in range(3) for block in range(blocks)), "pool")


def _blocks_per_stage(depth: int) -> int:
    blocks, rest = divmod(depth - 4, 6)
    if blocks < 1 or rest:
        raise ConfigurationError(f"depth: expected 6 * n + 4 with n >= 1, such as 10, 16, 28 or 34, got {depth}")
    return blocks


class WideBlock(nn.Module):
    """Pre-activation residual block of two 3x3 convolutions, without dropout.

    Where the width changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, in_width: int, out_width: int, stride: int) -> None:
        """Build a block from ``in_width`` to ``out_width`` channels."""
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_width)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_width, out_width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_width)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_width, out_width, 3, padding=1, bias=False)
        self.shortcut = None
        if in_width != out_width:
            self.shortcut = nn.Conv2d(in_width, out_width, 1, stride=stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map activations ``(N, in_width, H, W)`` to ``(N, out_width, H / stride, W / stride)``."""
        activated = self.relu1(self.norm1(inputs))
        residual: Tensor = self.conv2(self.relu2(self.norm2(self.conv1(activated))))
        return residual + (inputs if self.shortcut is None else self.shortcut(activated))


class WideResNet(nn.Module):
    """WideResNet-34-10 by default.

    Source: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016.

    Attributes:
        head_name: Name of the module that gives the logits.
        default_layers: Names of the layers read for trajectories, in network order.
    """

    head_name: ClassVar[str] = "fc"

    def __init__(self, *, num_classes: int = 10, depth: int = DEPTH, widen: int = WIDEN, in_channels: int = 3) -> None:
        """Build the network.

        Args:
            num_classes: Number of classes C.
            depth: ``6 * blocks per stage + 4``.
            widen: Factor on the widths 16, 32, 64 of the three stages.
            in_channels: Channels of the images.

        Raises:
            ConfigurationError: When no network has this depth.
        """
        super().__init__()
        self.default_layers = wide_layers(depth)
        widths = [STEM_WIDTH, *(STEM_WIDTH * factor * widen for factor in (1, 2, 4))]
        blocks = _blocks_per_stage(depth)
        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.stages = nn.Sequential(
            *(_stage(blocks, widths[i], widths[i + 1], stride=1 if i == 0 else 2) for i in range(3))
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.relu = nn.ReLU()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(widths[-1], num_classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images ``(N, in_channels, H, W)``; return logits ``(N, C)``."""
        activations = self.relu(self.norm(self.stages(self.stem(images))))
        logits: Tensor = self.fc(self.pool(activations))
        return logits


def _stage(blocks: int, in_width: int, out_width: int, *, stride: int) -> nn.Sequential:
    first = WideBlock(in_width, out_width, stride)
    return nn.Sequential(first, *(WideBlock(out_width, out_width, 1) for _ in range(blocks - 1)))


def _initialise(network: WideResNet) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan = math.prod(module.kernel_size) * module.out_channels
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan))
    nn.init.zeros_(network.fc.bias)
