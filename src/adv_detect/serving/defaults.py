"""Defaults of PyTorch while a model is built."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_DEFAULTS = threading.Lock()


@contextmanager
def plain_defaults() -> Iterator[None]:
    """Build modules on the CPU in float32, whatever the process has chosen as its defaults."""
    with _DEFAULTS, torch.device("cpu"):  # the device is that of the thread, the type that of the process
        chosen = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(chosen)
