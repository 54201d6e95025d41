"""Makes shards one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adv_detect.errors import ShardError
from adv_detect.sharding.plan import ShardContent, ShardPlan, ShardSpec
from adv_detect.sharding.store import ShardStore


def run_local(
    plan: ShardPlan, store: ShardStore, missing: tuple[ShardSpec, ...], advance: Callable[..., object]
) -> None:
    """Make and write shards in order; at most one is in memory.

    Args:
        plan: Where the shards come from.
        store: Where they go.
        missing: Which ones.
        advance: Called with the size of each shard that is made.

    Raises:
        ShardError: The work function failed.
    """
    for spec in missing:
        try:
            make_shard(plan.work, spec, store)
        except Exception as exc:
            raise failed_shard(plan, spec.key, exc) from exc
        advance(spec.size)


def make_shard(work: Callable[[Any], ShardContent], spec: ShardSpec, store: ShardStore) -> None:
    """Make one shard and write it.

    Args:
        work: Returns the content for the shard's arguments.
        spec: Which shard.
        store: Where it goes.

    Raises:
        TypeError: The work function returned something else than a content.
    """
    content = work(spec.arguments)
    if not isinstance(content, ShardContent):
        raise TypeError(f"expected the work function to return a ShardContent, got {type(content).__name__}")
    store.write(spec.key, content, spec.fingerprint)


def failed_shard(plan: ShardPlan, key: str, cause: BaseException) -> ShardError:
    """Build the error for a shard that could not be made.

    Args:
        plan: The plan it belongs to.
        key: Its key.
        cause: What went wrong.

    Returns:
        An error to raise from the cause.
    """
    return ShardError(
        f"{plan.description}: shard {key!r} could not be made ({type(cause).__name__}: {cause}); "
        "the finished shards are kept, so a new run goes on from here"
    )
