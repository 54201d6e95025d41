"""Calls of a network in its own number format, and the logits among what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adv_detect.errors import ConfigurationError

LOGIT_NAMES = ("logits", "out")
"""What networks call their logits where they give more than one thing."""
HALF = (torch.float16, torch.bfloat16)
DEEPEST = 4
"""Containers within containers that are looked into."""


def call_network(network: nn.Module, images: Tensor, *, output: str | int | None = None) -> Tensor:
    """Run a network on images of any number format and return its logits.

    Args:
        network: A network; images are cast to the format of its first floating-point parameter.
        images: Shape ``(N, channels, H, W)``, floating-point or integer.
        output: Name or index of the logits among the outputs; None where :func:`pick_logits` can tell.

    Returns:
        What the network gives as its logits; float64 where the images and the network are, else float32.

    Raises:
        ConfigurationError: It cannot be told which output the logits are.
    """
    logits = pick_logits(network(images.to(number_format(network, images))), output)
    return in_format_of(logits, images)


def number_format(network: nn.Module, images: Tensor) -> torch.dtype:
    """Return the floating-point format that a network computes in; without parameters that of the images."""
    for parameter in network.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    return images.dtype if images.is_floating_point() else torch.float32


def in_format_of(values: Tensor, images: Tensor) -> Tensor:
    """Return results in float32, or as they are where the images are float64."""
    if values.dtype in HALF or (values.dtype == torch.float64 and images.dtype != torch.float64):
        return values.float()
    return values


def pick_logits(outputs: object, output: str | int | None = None) -> Tensor:
    """Find the logits in what a network gives.

    Args:
        outputs: A tensor, or a mapping, sequence or object that holds one.
        output: Key, attribute or index of the logits. None takes a tensor as it is, the entry or attribute ``logits``
            or ``out``, the only entry of a mapping, or the first one of a tuple or list.

    Returns:
        The logits, of whatever shape they have.

    Raises:
        ConfigurationError: There is no such entry, it is no tensor, or it cannot be told; the message lists what the
            network gives.
    """
    found = outputs if output is None else _named(outputs, output)
    for _ in range(DEEPEST):
        if isinstance(found, Tensor):
            return found
        found = _clear(found)
    if output is None:
        raise ConfigurationError(
            f"network.output: cannot tell which output of the network are the logits; it gives {describe(outputs)}; "
            "name one of them by key, attribute or index"
        )
    raise ConfigurationError(
        f"network.output: expected the name or index of a tensor of logits, got {output!r}; the network gives "
        f"{describe(outputs)}"
    )


def describe(value: object) -> str:
    """Say in words what a network or a layer gives: kind, names and shapes."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    entries = _entries(value)
    if not entries:
        return f"a {type(value).__name__}"
    listed = ", ".join(
        f"{name!r}: {tuple(item.shape) if isinstance(item, Tensor) else type(item).__name__}"
        for name, item in entries.items()
    )
    return f"a {type(value).__name__} of {{{listed}}}"


def _named(outputs: object, output: str | int) -> object:
    """Return what is under a name or index, None where nothing is."""
    if isinstance(outputs, Mapping) and output in outputs:
        return outputs[output]
    if isinstance(output, str):
        return None if isinstance(outputs, Tensor) else getattr(outputs, output, None)
    items = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    if isinstance(items, Sequence) and -len(items) <= output < len(items):
        return items[output]
    return None


def _clear(outputs: object) -> object:
    """Take the one entry that stands for the logits, None where that is not clear."""
    entries = _entries(outputs)
    for name in LOGIT_NAMES:
        if isinstance(entries.get(name), Tensor):
            return entries[name]
    if isinstance(outputs, Mapping):
        return next(iter(outputs.values())) if len(outputs) == 1 else None
    return outputs[0] if isinstance(outputs, tuple | list) and outputs else None


def _entries(value: object) -> dict[Any, object]:
    """Entries of a mapping, fields or public attributes of an object, items of a sequence by index."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    named = {name: item for name, item in getattr(value, "__dict__", {}).items() if not name.startswith("_")}
    slots = {name: getattr(value, name) for name in LOGIT_NAMES if isinstance(getattr(value, name, None), Tensor)}
    return named | slots
