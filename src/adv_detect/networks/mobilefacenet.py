"""MobileFaceNet: a face network of one million parameters with a 128-d embedding."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

EMBEDDING = 128
STEM_WIDTH = 64
LAST_WIDTH = 512
TOTAL_STRIDE = 16
STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
"""Expansion, width, number of blocks and stride of the first block, per stage."""

BLOCK_COUNT = sum(count for _, _, count, _ in STAGES)
MOBILEFACENET_LAYERS = (*(f"blocks.{index}" for index in range(BLOCK_COUNT)), "conv2", "embedding")


class ConvNorm(nn.Module):
    """Convolution, batch normalisation and, unless linear, PReLU."""

    def __init__(
        self, in_width: int, out_width: int, kernel: int | tuple[int, int], stride: int = 1, *, linear: bool = False
    ) -> None:
        """Build the layer; as many groups as the two widths share when they are equal and the kernel is not 1x1."""
        super().__init__()
        depthwise = in_width == out_width and kernel != 1
        padding = kernel // 2 if isinstance(kernel, int) else 0
        groups = in_width if depthwise else 1
        self.conv = nn.Conv2d(in_width, out_width, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_width)
        self.prelu = None if linear else nn.PReLU(out_width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map activations ``(N, in_width, H, W)`` to ``(N, out_width, H', W')``."""
        outputs: Tensor = self.bn(self.conv(inputs))
        return outputs if self.prelu is None else self.prelu(outputs)


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter by a depthwise 3x3, project by 1x1 without activation.

    Source: Sandler et al., "MobileNetV2", CVPR 2018, with PReLU.
    """

    def __init__(self, in_width: int, out_width: int, stride: int, expansion: int) -> None:
        """Build a block; it adds its input where the stride is 1 and the widths agree."""
        super().__init__()
        hidden = in_width * expansion
        self.residual = stride == 1 and in_width == out_width
        self.conv = nn.Sequential(
            nn.Conv2d(in_width, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.PReLU(hidden),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.PReLU(hidden),
            nn.Conv2d(hidden, out_width, 1, bias=False),
            nn.BatchNorm2d(out_width),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map activations ``(N, in_width, H, W)`` to ``(N, out_width, H / stride, W / stride)``."""
        outputs: Tensor = self.conv(inputs)
        return inputs + outputs if self.residual else outputs


class MobileFaceNet(nn.Module):
    """Face network with an embedding and, where classes are asked for, a linear head on it.

    Images are RGB, ``(pixel - 127.5) / 128``. Source: Chen et al., "MobileFaceNets", CCBR 2018.

    Attributes:
        head_name: Name of the module that gives the logits.
        default_layers: Names of the layers read for trajectories, in network order.
    """

    head_name: ClassVar[str] = "head"

    def __init__(
        self, *, num_classes: int | None = None, dropout: float = 0.0, image_size: tuple[int, int] = (112, 96)
    ) -> None:
        """Build the network.

        Args:
            num_classes: Number of identities C; None for a network that returns the embedding.
            dropout: Probability to drop a component of the embedding before the head while training.
            image_size: Height and width of the images in pixels.
        """
        super().__init__()
        self.default_layers = MOBILEFACENET_LAYERS
        height, width = (-(-side // TOTAL_STRIDE) for side in image_size)
        self.conv1 = ConvNorm(3, STEM_WIDTH, 3, 2)
        self.dw_conv1 = ConvNorm(STEM_WIDTH, STEM_WIDTH, 3)
        self.blocks = _blocks()
        self.conv2 = ConvNorm(STAGES[-1][1], LAST_WIDTH, 1)
        self.linear7 = ConvNorm(LAST_WIDTH, LAST_WIDTH, (height, width), linear=True)
        self.linear1 = ConvNorm(LAST_WIDTH, EMBEDDING, 1, linear=True)
        self.embedding = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.head = None if num_classes is None else nn.Linear(EMBEDDING, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, 3, H, W)`` to logits ``(N, C)``, or to embeddings ``(N, 128)`` without a head."""
        activations = self.conv2(self.blocks(self.dw_conv1(self.conv1(images))))
        embedding: Tensor = self.embedding(self.linear1(self.linear7(activations)))
        return embedding if self.head is None else self.head(self.dropout(embedding))


def _blocks() -> nn.Sequential:
    blocks: list[nn.Module] = []
    in_width = STEM_WIDTH
    for expansion, width, count, first_stride in STAGES:
        for index in range(count):
            blocks.append(InvertedResidual(in_width, width, first_stride if index == 0 else 1, expansion))
            in_width = width
    return nn.Sequential(*blocks)
