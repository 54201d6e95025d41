"""Describes where and with what was measured."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from adv_detect.memory import keep_freed_memory

PACKAGES = (
    "torch", "torchvision", "numpy", "scipy", "foolbox", "torchattacks", "adversarial-robustness-toolbox", "adv-lib",
    "ray",
)  # fmt: skip
BUSY = 0.3
"""Load a core from which other work disturbs the measurements."""


@dataclass(frozen=True)
class Load:
    """Mean number of processes at work during the last minute.

    Attributes:
        before: At the start of the run.
        after: At its end.
    """

    before: float
    after: float

    @property
    def busy(self) -> bool:
        return self.before > BUSY * (os.cpu_count() or 1)

    def __str__(self) -> str:
        warning = " (busy with other work: figures are uncertain)" if self.busy else ""
        return f"load {self.before:.1f} before{warning} and {self.after:.1f} after"


def load_average() -> float:
    """Load of the last minute; NaN where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan


def machine(device: torch.device, load: Load) -> str:
    """GPU and processor, cores, threads, whether freed memory stays with the process (as in a run), load."""
    memory = "kept" if keep_freed_memory() else "given back"
    rest = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, freed memory {memory}, {load}"
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
