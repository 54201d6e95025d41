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
from benchmarks.growth import generation_plan
from benchmarks.measure import Row, Settings, in_child

GROUP = "ray"
GOAL = 1.7
STEPS, SHARD, WIDTH = 10, 32, 32


def measure_ray(settings: Settings) -> Iterator[Row]:
    """The same shards by one worker and by two, in turns; starting the cluster and the workers does not count."""
    name = "generation: one Ray worker of one core / two"
    if find_spec("ray") is None:
        yield Row(GROUP, name, (), "ray is not installed (extra `ray`)", GOAL)
        return
    if (os.cpu_count() or 1) < 2:
        yield Row(GROUP, name, (), "needs two cores", GOAL)
        return
    count = settings.size(512, 2 * SHARD)
    values = []
    for number in range(settings.size(2, 1)):
        workers = (1, 2) if number % 2 == 0 else (2, 1)
        spent = {size: in_child(generate, size, count).result for size in workers}
        values.append(spent[1] / spent[2])
    note = (
        f"{count} images of noise, 3 x 112 x 96, in shards of at most {SHARD}, {STEPS} gradients each of three "
        f"convolutions ({WIDTH} to {2 * WIDTH} channels); start of cluster and workers not counted"
    )
    yield Row(GROUP, name, tuple(values), note, GOAL)


def generate(workers: int, count: int) -> float:
    """Seconds of the generation of so many images' adversarials on a fresh local cluster."""
    ray = importlib.import_module("ray")
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with tempfile.TemporaryDirectory() as folder:
            _execute(2 * SHARD, Path(folder, "before"))
            return _execute(count, Path(folder, "shards"))
    finally:
        ray.shutdown()


def _execute(count: int, folder: Path) -> float:
    plan = generation_plan(count, engine="ray", steps=STEPS, shard=SHARD, width=WIDTH)
    started = time.perf_counter()
    execute_plan(plan, ShardStore(str(folder)))
    return time.perf_counter() - started
