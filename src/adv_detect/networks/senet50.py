"""The Caffe-style SE-ResNet-50 of the VGGFace2 face recognition weights."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

BLOCKS = (3, 4, 6, 3)
STEM_WIDTH = 64
EXPANSION = 4
REDUCTION = 16
FEATURES = 2048

SENET50_LAYERS = tuple(f"stages.{stage}.{block}" for stage, count in enumerate(BLOCKS) for block in range(count))


class SqueezeExcite(nn.Module):
    """Channel gates from globally pooled activations.

    Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.
    """

    def __init__(self, width: int) -> None:
        """Build the gates of ``width`` channels."""
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.down = nn.Conv2d(width, width // REDUCTION, 1)
        self.relu = nn.ReLU()
        self.up = nn.Conv2d(width // REDUCTION, width, 1)
        self.gate = nn.Sigmoid()

    def forward(self, inputs: Tensor) -> Tensor:
        """Scale activations ``(N, width, H, W)`` by gates in [0, 1]."""
        gates: Tensor = self.gate(self.up(self.relu(self.down(self.pool(inputs)))))
        return inputs * gates


class SEBottleneck(nn.Module):
    """Bottleneck block with squeeze-and-excitation; the stride sits in the first 1x1 convolution."""

    def __init__(self, in_width: int, width: int, stride: int, *, project: bool) -> None:
        """Build a block from ``in_width`` to ``4 * width`` channels."""
        super().__init__()
        out_width = EXPANSION * width
        self.reduce = nn.Conv2d(in_width, width, 1, stride=stride, bias=False)
        self.reduce_bn = nn.BatchNorm2d(width)
        self.reduce_relu = nn.ReLU()
        self.middle = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.middle_bn = nn.BatchNorm2d(width)
        self.middle_relu = nn.ReLU()
        self.increase = nn.Conv2d(width, out_width, 1, bias=False)
        self.increase_bn = nn.BatchNorm2d(out_width)
        self.se = SqueezeExcite(out_width)
        self.proj = nn.Conv2d(in_width, out_width, 1, stride=stride, bias=False) if project else None
        self.proj_bn = nn.BatchNorm2d(out_width) if project else None
        self.relu = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """Map activations ``(N, in_width, H, W)`` to ``(N, 4 * width, H / stride, W / stride)``, after ReLU."""
        hidden = self.reduce_relu(self.reduce_bn(self.reduce(inputs)))
        hidden = self.middle_relu(self.middle_bn(self.middle(hidden)))
        residual = self.se(self.increase_bn(self.increase(hidden)))
        shortcut = inputs
        if self.proj is not None and self.proj_bn is not None:
            shortcut = self.proj_bn(self.proj(inputs))
        outputs: Tensor = self.relu(residual + shortcut)
        return outputs


class SENet50(nn.Module):
    """SE-ResNet-50 with a linear head on its 2048 pooled features.

    Images come preprocessed: BGR channel order, values 0..255 minus the channel means. Any size of about 32
    pixels or more is taken; the weights were made for 224 x 224. Source: Cao et al., "VGGFace2", FG 2018.

    Attributes:
        head_name: Name of the module that gives the logits.
        default_layers: Names of the layers read for trajectories, in network order.
    """

    head_name: ClassVar[str] = "head"

    def __init__(self, *, num_classes: int = 500, dropout: float = 0.0) -> None:
        """Build the network.

        Args:
            num_classes: Number of identities C.
            dropout: Probability to drop a pooled feature before the head while training.
        """
        super().__init__()
        self.default_layers = SENET50_LAYERS
        self.conv1 = nn.Conv2d(3, STEM_WIDTH, 7, stride=2, padding=3, bias=False)
        self.conv1_bn = nn.BatchNorm2d(STEM_WIDTH)
        self.relu = nn.ReLU()
        self.max_pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.stages = nn.Sequential(*(_stage(index, count) for index, count in enumerate(BLOCKS)))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(FEATURES, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images ``(N, 3, H, W)``; return logits ``(N, C)``."""
        activations = self.max_pool(self.relu(self.conv1_bn(self.conv1(images))))
        logits: Tensor = self.head(self.dropout(self.pool(self.stages(activations))))
        return logits


def _stage(index: int, blocks: int) -> nn.Sequential:
    width = STEM_WIDTH * 2**index
    in_width = STEM_WIDTH if index == 0 else EXPANSION * width // 2
    first = SEBottleneck(in_width, width, 1 if index == 0 else 2, project=True)
    others = (SEBottleneck(EXPANSION * width, width, 1, project=False) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)
