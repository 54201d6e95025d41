"""Measures two or more ways of doing the same in turn, and the memory of one in a process of its own."""

from __future__ import annotations

import math
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
MIB = 2**20
OURS = "ours"


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        group: Subject, such as ``attacks``.
        name: What is compared with what.
        values: One number a round, mostly a ratio; none where it could not be measured.
        note: Settings and outcome of both sides.
        goal: The wanted median: at least this, or at most it where ``at_most``; None for information.
        at_most: Whether smaller is better.
        unit: What the number is: ``x`` for a ratio.
        worse: In what our outcome falls behind that of the other side; speed does not make up for it.
        weaker: In what the outcome of the other side falls behind ours; its speed says little then.
        outcome: Success rates, distortions, rates and the like, by name.
    """

    group: str
    name: str
    values: tuple[float, ...]
    note: str
    goal: float | None = None
    at_most: bool = False
    unit: str = "x"
    worse: str = ""
    weaker: str = ""
    outcome: Mapping[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.values) if self.values else math.nan

    @property
    def verdict(self) -> str:
        """Whether the median meets the goal, at an outcome that is at least as good; empty without a goal."""
        if not self.values:
            return "not measured"
        if self.goal is None:
            return ""
        met = self.median <= self.goal if self.at_most else self.median >= self.goal
        if met and self.worse:
            return f"missed: {self.worse}"
        missed = f"missed, but theirs: {self.weaker}" if self.weaker else "missed"
        return "met" if met else missed

    def record(self) -> dict[str, Any]:
        """The row as a flat mapping, for a table."""
        return {
            "group": self.group,
            "comparison": self.name,
            "median": self.median,
            "min": min(self.values, default=math.nan),
            "max": max(self.values, default=math.nan),
            "rounds": len(self.values),
            "unit": self.unit,
            "goal": math.nan if self.goal is None else self.goal,
            "at_most": self.at_most,
            "verdict": self.verdict,
            "note": self.note,
            **self.outcome,
        }


@dataclass(frozen=True)
class Settings:
    """How much is measured, and on which device."""

    quick: bool
    device: torch.device

    @property
    def rounds(self) -> int:
        return 1 if self.quick else 3

    @property
    def many_rounds(self) -> int:
        """For ratios near one of short works, where a few rounds say little."""
        return 3 if self.quick else 9

    def size(self, full: int, quick: int, *, gpu: int | None = None) -> int:
        """Choose a size: a GPU takes more where ``gpu`` is given."""
        if self.quick:
            return quick
        return gpu if gpu is not None and self.device.type == "cuda" else full


def in_turns(
    works: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    rounds: int,
    warm: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, tuple[float, ...]]:
    """Time works in turn; each round begins with the next of them.

    Args:
        works: What to run, by name.
        device: Where it runs; a GPU is waited for.
        rounds: How often each is timed.
        warm: Whether to run each once before, untimed.
        clock: Gives the time in seconds.

    Returns:
        Seconds of each round, by name.
    """
    names = list(works)
    if warm:
        for name in names:
            works[name]()
    spent: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            spent[name].append(seconds(works[name], device, clock=clock))
    return {name: tuple(values) for name, values in spent.items()}


def ratios(upper: Sequence[float], lower: Sequence[float], *, scale: float = 1.0) -> tuple[float, ...]:
    """Divide round by round."""
    return tuple(scale * one / other for one, other in zip(upper, lower, strict=True))


def seconds(
    work: Callable[[], object], device: torch.device, *, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Time one run; work that a GPU still has to do counts."""
    synchronise(device)
    started = clock()
    work()
    synchronise(device)
    return clock() - started


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Measured:
    """What a work did in a process of its own.

    Attributes:
        result: What it returned.
        seconds: How long it took.
        added_mib: By how much the peak of the process's memory rose.
        peak_mib: Peak memory of the whole process.
    """

    result: Any
    seconds: float
    added_mib: float
    peak_mib: float


def in_child(work: Callable[..., Any], *arguments: Any, warm: tuple[Any, ...] | None = None) -> Measured:
    """Run a module-level function in a fresh process.

    Args:
        work: The function.
        *arguments: Its arguments.
        warm: Arguments of a small run before, so that libraries are loaded when the measuring begins.

    Raises:
        RuntimeError: The function failed in the child.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, work, arguments, warm, torch.get_num_threads()))
    process.start()
    sender.close()
    try:
        outcome: Measured | str = receiver.recv()
    except EOFError:
        outcome = "it ended without a result"
    process.join()
    if isinstance(outcome, str):
        raise RuntimeError(f"{work.__name__}{arguments} failed in its process: {outcome}")
    return outcome


def _report(sender: Any, work: Callable[..., Any], arguments: tuple[Any, ...], warm: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        if warm is not None:
            work(*warm)
        before = peak_mib()
        started = time.perf_counter()
        result = work(*arguments)
        spent = time.perf_counter() - started
        sender.send(Measured(result, spent, peak_mib() - before, peak_mib()))
    except Exception as exc:
        sender.send(f"{type(exc).__name__}: {exc}")


def family_memory_mib(process: int) -> float:
    """Memory that a process and all that it started take now; pages that several share count once, a part for each.

    Returns:
        The sum of their proportional set sizes; 0 where there is no ``/proc``.
    """
    found, waiting = 0.0, [process]
    while waiting:
        one = waiting.pop()
        waiting += children_of(one)
        found += _status_mib(Path("/proc", str(one), "smaps_rollup"), "Pss:")
    return found


def children_of(process: int) -> list[int]:
    """Processes that a process started and that are there; none where there is no ``/proc``."""
    try:
        tasks = list(Path("/proc", str(process), "task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text(encoding="utf-8").split()]
    except OSError:
        return []


def peak_mib(process: int | str = "self") -> float:
    """Peak memory of a process so far; of another than this one only where there is ``/proc``.

    ``ru_maxrss`` begins, in a started process, at the peak of the one that started it, so it is the second choice.
    """
    status = Path("/proc", str(process), "status")
    if process == "self" and not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT / MIB
    return _status_mib(status, "VmHWM:")


def _status_mib(path: Path, key: str) -> float:
    """A size in a file of ``/proc``; 0 where the process is gone."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(key)), 0.0)
