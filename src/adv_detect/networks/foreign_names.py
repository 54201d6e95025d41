"""Names that tensors have in weight files made elsewhere, and what they are called here."""

from __future__ import annotations

import re

from torch import nn

from adv_detect.networks.senet50 import SENet50
from adv_detect.networks.small import SmallNetwork
from adv_detect.networks.wide import WideResNet

Rule = tuple[re.Pattern[str], str]

_SMALL: tuple[Rule, ...] = (
    (re.compile(r"^feature_extractor\.(conv\d)\."), r"convolutions.\1."),
    (re.compile(r"^classifier\.(fc\d)\."), r"dense.\1."),
)

_WIDE_PARTS = {"bn1": "norm1", "conv1": "conv1", "bn2": "norm2", "conv2": "conv2", "convShortcut": "shortcut"}
_WIDE_BLOCK = re.compile(rf"^block([1-3])\.layer\.(\d+)\.({'|'.join(_WIDE_PARTS)})\.(\w+)$")
_WIDE_OTHERS: tuple[Rule, ...] = (
    (re.compile(r"^conv1\."), "stem."),
    (re.compile(r"^bn1\."), "norm."),
)
_WIDE_UNUSED = "sub_block1."

_CAFFE_PARTS = {
    "1x1_reduce": "reduce",
    "3x3": "middle",
    "1x1_increase": "increase",
    "1x1_down": "se.down",
    "1x1_up": "se.up",
    "1x1_proj": "proj",
}
_CAFFE_BLOCK = re.compile(rf"^conv([2-5])_(\d+)_({'|'.join(_CAFFE_PARTS)})(_bn)?\.(\w+)$")
_CAFFE_OTHERS: tuple[Rule, ...] = (
    (re.compile(r"^conv1_7x7_s2\."), "conv1."),
    (re.compile(r"^conv1_7x7_s2_bn\."), "conv1_bn."),
    (re.compile(r"^classifier(_1)?\."), "head."),
)

_TORCHVISION_PARTS = {
    "conv1": "reduce",
    "bn1": "reduce_bn",
    "conv2": "middle",
    "bn2": "middle_bn",
    "conv3": "increase",
    "bn3": "increase_bn",
    "conv4": "se.down",
    "conv5": "se.up",
    "se.fc1": "se.down",
    "se.fc2": "se.up",
    "se_module.fc1": "se.down",
    "se_module.fc2": "se.up",
    "downsample.0": "proj",
    "downsample.1": "proj_bn",
}
_TORCHVISION_BLOCK = re.compile(r"^layer([1-4])\.(\d+)\.(.+)\.(\w+)$")
_TORCHVISION_OTHERS: tuple[Rule, ...] = (
    (re.compile(r"^bn1\."), "conv1_bn."),
    (re.compile(r"^fc\."), "head."),
)


def own_name(network: nn.Module, name: str) -> str | None:
    """Translate the name of a tensor of a foreign weight file.

    Args:
        network: The network that the file is for.
        name: Name in the file.

    Returns:
        Name in the network's state dict, the given name where no rule knows it, or None for a tensor that is
        known to be unused.
    """
    if isinstance(network, SmallNetwork):
        return _apply(_SMALL, name)
    if isinstance(network, WideResNet):
        return None if name.startswith(_WIDE_UNUSED) else _wide_name(name)
    if isinstance(network, SENet50):
        return _senet50_name(name)
    return name


def _apply(rules: tuple[Rule, ...], name: str) -> str:
    for pattern, replacement in rules:
        if pattern.search(name):
            return pattern.sub(replacement, name)
    return name


def _wide_name(name: str) -> str:
    match = _WIDE_BLOCK.match(name)
    if match is None:
        return _apply(_WIDE_OTHERS, name)
    stage, block, part, leaf = match.groups()
    return f"stages.{int(stage) - 1}.{block}.{_WIDE_PARTS[part]}.{leaf}"


def _senet50_name(name: str) -> str:
    caffe = _CAFFE_BLOCK.match(name)
    if caffe:
        stage, block, part, norm, leaf = caffe.groups()
        return f"stages.{int(stage) - 2}.{int(block) - 1}.{_CAFFE_PARTS[part]}{norm or ''}.{leaf}"
    torchvision = _TORCHVISION_BLOCK.match(name)
    if torchvision and torchvision[3] in _TORCHVISION_PARTS:
        stage, block, part, leaf = torchvision.groups()
        return f"stages.{int(stage) - 1}.{block}.{_TORCHVISION_PARTS[part]}.{leaf}"
    return _apply(_CAFFE_OTHERS + _TORCHVISION_OTHERS, name)
