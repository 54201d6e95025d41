"""Results that are made only where the one on disk is out of date."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Deferred(Generic[T]):
    """Something that need not be made when the one on disk came from the same ingredients.

    Attributes:
        fingerprint: Digest of everything that decides the result.
        make: Makes it; called only when the fingerprint on disk is another one.
        check: Refuses a result that does not do, be it new or found on disk; what it asks for is no ingredient, so
            that another demand makes nothing anew. None refuses none.
    """

    fingerprint: str
    make: Callable[..., T]
    check: Callable[[T], None] | None = None

    def accept(self, result: T) -> T:
        """Return a result that does; the check raises where one does not."""
        if self.check is not None:
            self.check(result)
        return result


@dataclass(frozen=True)
class Resumable(Deferred[T]):
    """Something whose making goes on where an earlier run ended.

    Its ``make`` takes, if it is given one, a checkpoint (:class:`adv_detect.algorithms.fitting.Checkpoint`) that keeps
    what is unfinished.
    """

    def resume(self, checkpoint: Any) -> T:
        """Make it with a checkpoint."""
        return self.make(checkpoint)
