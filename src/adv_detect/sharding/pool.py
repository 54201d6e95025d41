"""Worker processes of one thread each, where they pay: shards, which they write themselves, and other tasks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from adv_detect.params import RuntimeParams
from adv_detect.progress import show_progress
from adv_detect.sharding.local import failed_shard, make_shard
from adv_detect.sharding.plan import ShardContent, ShardPlan, ShardSpec
from adv_detect.sharding.store import ShardStore
from adv_detect.workers import TaskError, run_in_workers

ResultT = TypeVar("ResultT")
MOST_PROCESSES = 8
"""Worker processes that more cores do not raise by themselves: each takes half a gigabyte before it does anything."""
MEMORY_OF_ONE = 4 * 2**30
"""Bytes of this machine for each process: attacks on batches of faces took so much."""


def processes_for(runtime: RuntimeParams, count: int, *, one_thread: bool) -> int:
    """Choose in how many processes tasks are done.

    Args:
        runtime: A number holds for all tasks. ``auto`` means one process per thread that this one may use, for tasks
            that gain little from a second thread, as far as the memory of this machine goes; one process for others,
            and where a GPU does the work.
        count: Number of tasks.
        one_thread: Whether the tasks gain little from a second thread.

    Returns:
        The number, at most one per task; 1 means this process, with all its threads.
    """
    if runtime.processes != "auto":
        return min(runtime.processes, count)
    if not one_thread or _on_gpu(runtime.device):
        return 1
    return min(torch.get_num_threads(), _fitting_memory(), MOST_PROCESSES, count)


def _fitting_memory() -> int:
    """Number of processes that the memory of this machine carries."""
    try:
        return max(1, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MEMORY_OF_ONE)
    except (AttributeError, OSError, ValueError):  # no such question here
        return MOST_PROCESSES


def _on_gpu(device: str) -> bool:
    return device != "cpu" and (device != "auto" or torch.cuda.is_available())


def run_pool(
    plan: ShardPlan,
    store: ShardStore,
    missing: tuple[ShardSpec, ...],
    advance: Callable[..., object],
    *,
    processes: int,
) -> None:
    """Make and write shards side by side; nothing but the end of each comes back.

    Args:
        plan: Where the shards come from.
        store: Where they go; not in the memory of this process.
        missing: Which ones.
        advance: Called with the size of each shard that is made.
        processes: Number of worker processes.

    Raises:
        ShardError: The work function failed, or a process ended.
    """
    try:
        run_in_workers(
            processes, partial(_make, plan.work, store), missing, lambda position, _: advance(missing[position].size)
        )
    except TaskError as exc:
        raise failed_shard(plan, missing[exc.position].key, exc.__cause__ or exc) from exc.__cause__


def do_all(
    work: Callable[[Any], ResultT], tasks: Sequence[Any], runtime: RuntimeParams, *, title: str, unit: str
) -> list[ResultT]:
    """Call a function with every task, of which none gains much from a second thread.

    Args:
        work: The function; where processes share the tasks it reads what it needs from disk, and returns little.
        tasks: Its arguments, small and picklable.
        runtime: Number of processes; whether progress is shown.
        title: What is done.
        unit: What the tasks are, in the plural.

    Returns:
        The results, in the order of the tasks. An error of a task is raised as it is.
    """
    found: dict[int, ResultT] = {}
    processes = processes_for(runtime, len(tasks), one_thread=True)
    with show_progress(title, len(tasks), unit=unit, shown=runtime.progress) as advance:

        def keep(position: int, result: ResultT) -> None:
            found[position] = result
            advance()

        if processes == 1:
            for position, task in enumerate(tasks):
                keep(position, work(task))
        else:
            try:
                run_in_workers(processes, work, tasks, keep)
            except TaskError as exc:
                raise (exc.__cause__ or exc) from None
    return [found[position] for position in range(len(tasks))]


def _make(work: Callable[[Any], ShardContent], store: ShardStore, spec: ShardSpec) -> None:
    make_shard(work, spec, store)
