"""Times two ways of doing the same in turn, and describes the machine."""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "foolbox", "torchattacks", "adversarial-robustness-toolbox", "scikit-learn", "ray")
KIB = 1024 if sys.platform != "darwin" else 1


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        group: Subject, such as ``attacks``.
        name: What is compared with what.
        ratios: One number a round.
        note: Settings and outcome of both sides.
        goal: The wanted median: at least this, or at most it where ``at_most``; None for information.
        at_most: Whether smaller is better.
        unit: What the number is.
    """

    group: str
    name: str
    ratios: tuple[float, ...]
    note: str
    goal: float | None = None
    at_most: bool = False
    unit: str = "x"

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        met = self.median <= self.goal if self.at_most else self.median >= self.goal
        return "met" if met else "missed"

    def record(self) -> dict[str, Any]:
        return {
            "group": self.group, "comparison": self.name, "median": self.median, "min": min(self.ratios),
            "max": max(self.ratios), "rounds": len(self.ratios), "unit": self.unit, "goal": self.goal,
            "at_most": self.at_most, "verdict": self.verdict, "note": self.note,
        }  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How much is measured, and on which device."""

    quick: bool
    device: torch.device

    @property
    def rounds(self) -> int:
        return 1 if self.quick else 3

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started


def alternate(
    ours: Callable[[], object], other: Callable[[], object], settings: Settings, *, rounds: int | None = None
) -> tuple[float, ...]:
    """Time both in turn, the first of each pair changing, after one call of each that does not count.

    Returns:
        Time of the other over ours, a number a round.
    """
    ours(), other()
    ratios = []
    for number in range(rounds or settings.rounds):
        pair = {}
        for name, work in (("ours", ours), ("other", other))[:: 1 if number % 2 == 0 else -1]:
            pair[name] = seconds(work, settings.device)
        ratios.append(pair["other"] / pair["ours"])
    return tuple(ratios)


def in_child(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """Run a module-level function in a fresh process.

    Returns:
        Its result, its seconds, and by how many MiB the peak of the process's memory rose meanwhile.
    """
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_report, args=(queue, work, arguments))
    process.start()
    outcome: tuple[Any, float, float] | str = queue.get()
    process.join()
    if isinstance(outcome, str):
        raise RuntimeError(outcome)
    return outcome


def _report(queue: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        before = peak_mib()
        started = time.perf_counter()
        result = work(*arguments)
        queue.put((result, time.perf_counter() - started, peak_mib() - before))
    except Exception as exc:
        queue.put(f"{type(exc).__name__}: {exc}")


def peak_mib() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB / 2**20


def machine(device: torch.device) -> str:
    """Processor or GPU, cores, threads."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {os.cpu_count()} CPU cores"
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def versions() -> str:
    """Versions of what is compared, of packages that are installed."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except ModuleNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)
