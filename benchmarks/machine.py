"""Describes where and with what was measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = (
    "torch", "torchvision", "numpy", "scipy", "foolbox", "torchattacks", "adversarial-robustness-toolbox", "ray",
)  # fmt: skip
KEEPS_MEMORY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def machine(device: torch.device) -> str:
    """GPU and processor, cores, threads, and whether freed memory stays with the process (as `make` sets it)."""
    keeps = all(name in os.environ for name in KEEPS_MEMORY)
    rest = (
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, freed memory {'kept' if keeps else 'given back'}"
    )
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {processor()}, {rest}"
    return f"{processor()}, {rest}"


def processor() -> str:
    """Model name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> str:
    """Versions of Python and of what is compared."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in PACKAGES)])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
