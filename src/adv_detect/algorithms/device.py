"""Devices of tensors."""

from __future__ import annotations

import re

import torch
from torch import nn

from adv_detect.errors import ConfigurationError

SUPPORTED = re.compile(r"cpu|cuda(:\d{1,3})?")
"""Devices that everything here runs on."""


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
    if not SUPPORTED.fullmatch(name):
        raise ConfigurationError(f"runtime.device: expected auto, cpu, cuda or cuda:<index>, got {name!r}")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            f"runtime.device: {name!r} was asked for, but torch sees no CUDA device; use auto or cpu"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ConfigurationError(f"runtime.device: expected cuda:0 to cuda:{last} on this machine, got {name!r}")
    return device


def device_of(module: nn.Module) -> torch.device:
    """Find the device that a module lies on: that of its first parameter or buffer, else the processor."""
    tensors = (tensor for group in (module.parameters(), module.buffers()) for tensor in group)
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
