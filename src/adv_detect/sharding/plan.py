"""Plan of a sharded data set: its shards and the function that makes one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from adv_detect.errors import ShardError
from adv_detect.keys import KEY_RULE, is_key
from adv_detect.params import RuntimeParams

SHOWN_KEY = 80
SHARDS = "shards"
"""Unit of a plan whose shards are counted themselves."""


@dataclass(frozen=True)
class ShardContent:
    """Content of one shard.

    Attributes:
        tensors: Tensors by name, any shapes and dtypes, at least one.
        metadata: JSON-able values by name.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardSpec:
    """One shard to make.

    Attributes:
        key: Name of the shard within its data set; ``/`` makes folders, as in ``bim/targeted/test-0000``.
        fingerprint: Digest of everything that decides the content; a shard on disk with the same one is kept.
        arguments: What the work function is called with; small and picklable.
        size: Units of work in it, for the progress.
    """

    key: str
    fingerprint: str
    arguments: Any
    size: int = 1


@dataclass(frozen=True)
class ShardPlan:
    """All shards of a data set and the function that makes one.

    Attributes:
        work: Called with the arguments of one shard, returns its content; picklable for the Ray engine.
        shards: The shards, in the order in which they are made.
        runtime: Engine, progress and resources.
        description: What is made, for the progress and for errors.
        unit: What the sizes of the shards count, in the plural.
        one_thread: Whether the work gains little from a second thread: such shards are made side by side in processes
            of one thread where ``runtime.processes`` is ``auto``.

    Raises:
        ShardError: Two shards have one key, or a key cannot name a file.
    """

    work: Callable[[Any], ShardContent]
    shards: tuple[ShardSpec, ...]
    runtime: RuntimeParams
    description: str
    unit: str = SHARDS
    one_thread: bool = False

    def __post_init__(self) -> None:
        """Check the keys."""
        repeated = [key for key, count in Counter(self.keys).items() if count > 1]
        if repeated:
            raise ShardError(f"{self.description}: expected each shard key once, got twice or more: {repeated[:5]}")
        for key in self.keys:
            check_key(key, self.description)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all shards, in order."""
        return tuple(spec.key for spec in self.shards)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each shard by its key."""
        return {spec.key: spec.fingerprint for spec in self.shards}


def check_key(key: str, description: str) -> None:
    """Refuse a key that no file can have, that would leave the folder of the store or clash with its own files.

    Args:
        key: Name of a shard.
        description: What it belongs to.

    Raises:
        ShardError: The key is not usable.
    """
    if not is_key(key):
        shown = key if len(key) <= SHOWN_KEY else f"{key[:SHOWN_KEY]}... ({len(key)} characters)"
        raise ShardError(f"{description}: shard key {shown!r}: {KEY_RULE}")
