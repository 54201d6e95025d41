"""Results that are made only where the one on disk is out of date."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Deferred(Generic[T]):
    """Something that need not be made when the one on disk came from the same ingredients.

    Attributes:
        fingerprint: Digest of everything that decides the result.
        make: Makes it; called only when the fingerprint on disk is another one.
    """

    fingerprint: str
    make: Callable[[], T]
