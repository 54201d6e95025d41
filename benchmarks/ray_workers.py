"""Two Ray workers of one core each against one."""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from adv_detect.sharding import ShardStore, execute_plan
from benchmarks.growth import SHARD, generation_plan
from benchmarks.measure import Row, Settings, in_child

GROUP = "ray"
GOAL = 1.7
STEPS = 10


def measure_ray(settings: Settings) -> Iterator[Row]:
    """The same shards by one worker and by two, in turns; starting the cluster and the workers does not count."""
    name = "generation: one Ray worker of one core / two"
    if find_spec("ray") is None:
        yield Row(GROUP, name, (), "ray is not installed (extra `ray`)", GOAL)
        return
    if (os.cpu_count() or 1) < 2:
        yield Row(GROUP, name, (), "needs two cores", GOAL)
        return
    shards = settings.size(8, 2)
    values = []
    for number in range(settings.size(2, 1)):
        workers = (1, 2) if number % 2 == 0 else (2, 1)
        spent = {count: in_child(generate, count, shards).result for count in workers}
        values.append(spent[1] / spent[2])
    note = (
        f"{shards} shards of {SHARD} synthetic images, {STEPS} gradients each; start of cluster and workers not counted"
    )
    yield Row(GROUP, name, tuple(values), note, GOAL)


def generate(workers: int, shards: int) -> float:
    """Seconds of the generation of so many shards on a fresh local cluster."""
    ray = importlib.import_module("ray")
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with tempfile.TemporaryDirectory() as folder:
            execute_plan(generation_plan(2 * SHARD, engine="ray"), ShardStore(str(Path(folder, "before"))))
            plan = generation_plan(SHARD * shards, engine="ray", steps=STEPS)
            started = time.perf_counter()
            execute_plan(plan, ShardStore(str(Path(folder, "shards"))))
            return time.perf_counter() - started
    finally:
        ray.shutdown()
