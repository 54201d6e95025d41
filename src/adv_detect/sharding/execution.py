"""Makes the shards of a plan that are not there yet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from time import perf_counter

from adv_detect.errors import DamagedFileError
from adv_detect.progress import show_progress
from adv_detect.sharding.local import run_local
from adv_detect.sharding.plan import SHARDS, ShardPlan, ShardSpec
from adv_detect.sharding.store import ShardStore

logger = logging.getLogger(__name__)

Engine = Callable[[ShardPlan, ShardStore, tuple[ShardSpec, ...], Callable[..., object]], None]


def execute_plan(plan: ShardPlan, store: ShardStore) -> None:
    """Bring a store to exactly what a plan says.

    Shards whose fingerprint and digests agree are kept, the others are made and written one by one, shards that are not
    planned are deleted at the end, and the marker of completeness is written last. After a failure or a kill the
    finished shards stay, and the next call goes on from there.

    Args:
        plan: The shards and how to make them.
        store: Where they lie.

    Raises:
        ShardError: A shard could not be made; the message names the data set and the shard.
        ConfigurationError: The engine is not usable.
    """
    started = perf_counter()
    store.remove_leftovers()
    missing = tuple(spec for spec in plan.shards if not _sound(store, spec))
    if missing or not store.holds(plan) or not store.complete:
        store.begin(plan)
        _make(plan, store, missing)
        store.finish(plan)
    seconds = perf_counter() - started
    logger.info(
        "%s: %d shards made, %d kept, in %.1f s%s",
        plan.description,
        len(missing),
        len(plan.shards) - len(missing),
        seconds,
        "" if plan.unit == SHARDS or not missing else f", {_units(missing) / seconds:.3g} {plan.unit} a second",
    )


def _sound(store: ShardStore, spec: ShardSpec) -> bool:
    """Return whether a shard is there, made from what the plan says, every byte as it was written."""
    if spec.key not in store:
        return False
    try:
        if store.fingerprint(spec.key) != spec.fingerprint:
            return False
        store.check(spec.key)
    except DamagedFileError as exc:
        logger.warning("%s", exc.remade_by("it is made again"))
        return False
    return True


def _make(plan: ShardPlan, store: ShardStore, missing: tuple[ShardSpec, ...]) -> None:
    kept = len(plan.shards) - len(missing)
    title = f"{plan.description} ({kept} kept)" if kept else plan.description
    total, left = _units(plan.shards), _units(missing)
    with show_progress(title, total, unit=plan.unit, done=total - left, shown=plan.runtime.progress) as advance:
        if missing:
            _engine(plan, store, len(missing))(plan, store, missing, advance)


def _units(shards: tuple[ShardSpec, ...]) -> int:
    return sum(spec.size for spec in shards)


def _engine(plan: ShardPlan, store: ShardStore, count: int) -> Engine:
    """Choose what makes so many shards."""
    if plan.runtime.engine == "ray":
        from adv_detect.sharding.ray_engine import run_ray

        return run_ray
    if plan.runtime.processes == 1 or "memory" in store.fs.protocol:  # other processes do not see this one's memory
        return run_local
    from adv_detect.sharding.pool import processes_for, run_pool

    processes = processes_for(plan.runtime, count, one_thread=plan.one_thread)
    return run_local if processes == 1 else partial(run_pool, processes=processes)
