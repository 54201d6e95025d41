"""Things that are made only when what lies on disk is out of date."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adv_detect.networks.target import TargetNetwork


@dataclass(frozen=True)
class LazyNetwork:
    """A network under attack that need not be made when the one on disk came from the same ingredients.

    Attributes:
        fingerprint: Digest of everything that decides the network.
        make: Trains or loads it; called only when the fingerprint on disk is another one.
    """

    fingerprint: str
    make: Callable[[], TargetNetwork]
