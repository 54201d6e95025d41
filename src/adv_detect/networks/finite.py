"""Weights that are numbers: no NaN, no infinity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adv_detect.errors import CheckpointError


def check_finite(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights with NaN or infinity, before they are loaded.

    A buffer may hold the infinities that the network itself puts there, as attention masks do.

    Args:
        network: The network that the weights are for, as it was built.
        tensors: Weights by their names in the network; looked at in the network's number type, in which large ones
            of another type may become infinite.
        source: Where they come from; the message starts with it.

    Raises:
        CheckpointError: A number is not finite; the message names the first such tensor.
    """
    own, buffers = dict(network.state_dict()), dict(network.named_buffers())
    counts = {name: _not_finite(value, own.get(name), buffers.get(name)) for name, value in tensors.items()}
    bad = [name for name, count in counts.items() if count]
    if bad:
        raise CheckpointError(
            f"{source}: expected finite weights, got NaN or infinity in {len(bad)} of {len(tensors)} tensors, first in "
            f"{bad[0]!r} ({counts[bad[0]]} of {tensors[bad[0]].numel()} numbers); the training diverged: "
            "take an earlier checkpoint or lower the learning rate"
        )


def _not_finite(value: Tensor, own: Tensor | None, buffer: Tensor | None) -> int:
    """Count NaN and infinities, but for those that the network's own buffer has in the same place."""
    if value.is_meta or not (value.is_floating_point() or value.is_complex()):
        return 0
    cast = (value if own is None else value.to(own.dtype)).detach()
    if cast.is_floating_point() and cast.dtype.itemsize == 1:  # eight bits: PyTorch compares few of these types
        cast = cast.float()
    bad = ~torch.isfinite(cast)
    if buffer is not None and buffer.shape == cast.shape:
        bad &= cast != buffer.to(cast.device, cast.dtype)
    return int(bad.sum())
