"""Where tensors live."""

from __future__ import annotations

import torch
from torch import nn

from adv_detect.errors import ConfigurationError


def resolve_device(name: str) -> torch.device:
    """Turn a configured device into a usable one.

    Args:
        name: ``auto`` (the GPU when there is one), ``cpu``, ``cuda`` or ``cuda:<index>``.

    Returns:
        The device.

    Raises:
        ConfigurationError: The name is no device, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise ConfigurationError(f"runtime.device: expected auto, cpu, cuda or cuda:<index>, got {name!r}") from exc
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            f"runtime.device: {name!r} was asked for, but torch sees no CUDA device; use auto or cpu"
        )
    return device


def device_of(module: nn.Module) -> torch.device:
    """Find the device that a module lies on: that of its first parameter or buffer, else the processor."""
    tensors = (tensor for group in (module.parameters(), module.buffers()) for tensor in group)
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
