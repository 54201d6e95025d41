"""Makes shards as tasks of a Ray cluster; each worker writes its shard itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import islice
from typing import Any

from adv_detect.errors import ConfigurationError
from adv_detect.memory import KEPT, VARIABLES
from adv_detect.params import RayParams
from adv_detect.sharding.local import failed_shard, make_shard
from adv_detect.sharding.plan import ShardContent, ShardPlan, ShardSpec
from adv_detect.sharding.store import ShardStore

TASKS_PER_SLOT = 2  # queued beside each running task, so that no worker waits for the driver
CANCEL_SECONDS = 10.0
WORKER_ENVIRONMENT = dict.fromkeys(VARIABLES, str(KEPT))  # a worker's memory is set before its first line of ours


def run_ray(plan: ShardPlan, store: ShardStore, missing: tuple[ShardSpec, ...], advance: Callable[..., object]) -> None:
    """Make and write shards on a Ray cluster; only keys come back.

    A task whose worker dies is tried again up to ``max_retries`` times; a task whose work raises is not.

    Args:
        plan: Where the shards come from.
        store: Where they go; all workers must reach it.
        missing: Which ones.
        advance: Called with the size of each shard that is made.

    Raises:
        ConfigurationError: Ray is not installed, or the store lives in the memory of this process.
        ShardError: The work function failed, or a worker died too often.
    """
    if "memory" in store.fs.protocol:
        raise ConfigurationError("engine: ray needs storage that all workers reach, got memory://; use engine: local")
    ray = _connect(plan.runtime.ray)
    task = _task(ray, plan.runtime.ray)
    work = ray.put(plan.work)
    threads = max(1, int(plan.runtime.ray.num_cpus))
    waiting = iter(missing)
    running: dict[Any, ShardSpec] = {}
    try:
        while True:
            for spec in islice(waiting, _slots(ray, plan.runtime.ray) - len(running)):
                running[task.remote(work, spec, store, threads)] = spec
            if not running:
                return
            for done in ray.wait(list(running), num_returns=1)[0]:
                made = running.pop(done)
                _collect(ray, plan, done, made.key)
                advance(made.size)
    finally:
        _cancel(ray, list(running))


def _connect(params: RayParams) -> Any:
    try:
        import ray
    except ImportError as exc:
        raise ConfigurationError("engine: ray is not installed; pip install -e '.[ray]' or use local") from exc
    if not ray.is_initialized():
        ray.init(address=params.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    return ray


def _task(ray: Any, params: RayParams) -> Any:
    return ray.remote(_make_in_worker).options(
        num_cpus=params.num_cpus,
        num_gpus=params.num_gpus,
        max_retries=params.max_retries,
        retry_exceptions=False,
        runtime_env={"env_vars": WORKER_ENVIRONMENT},
    )


def _slots(ray: Any, params: RayParams) -> int:
    """Return how many tasks may be in flight: twice what the cluster, which may grow, runs at once."""
    resources = ray.cluster_resources()
    at_once = resources.get("CPU", 1) / (params.num_cpus or 1)
    if params.num_gpus:
        at_once = min(at_once, resources.get("GPU", 0) / params.num_gpus)
    return TASKS_PER_SLOT * max(1, int(at_once))


def _collect(ray: Any, plan: ShardPlan, done: Any, key: str) -> None:
    try:
        ray.get(done)
    except ray.exceptions.RayTaskError as exc:
        raise failed_shard(plan, key, exc.cause) from exc
    except ray.exceptions.RayError as exc:
        raise failed_shard(plan, key, exc) from exc


def _cancel(ray: Any, tasks: list[Any]) -> None:
    for task in tasks:
        ray.cancel(task, force=True)
    if tasks:
        ray.wait(tasks, num_returns=len(tasks), timeout=CANCEL_SECONDS)


def _make_in_worker(work: Callable[[Any], ShardContent], spec: ShardSpec, store: ShardStore, threads: int) -> str:
    import torch

    torch.set_num_threads(threads)
    make_shard(work, spec, store)
    return spec.key
