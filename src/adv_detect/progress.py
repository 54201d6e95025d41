"""Progress of long work: a bar on a terminal, a line in the log every tenth where there is none."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TypeVar

ItemT = TypeVar("ItemT")
Advance = Callable[..., object]
"""Called after a unit of work, or with the number of units that are done."""

LOGGER = logging.getLogger(__name__)
PARTS = 10
RATED = ("images",)
"""Units of which the log says how many are done a second, as a bar does of all."""


@contextmanager
def show_progress(title: str, total: int, *, unit: str, done: int = 0, shown: bool = True) -> Iterator[Advance]:
    """Show how far some work is.

    A bar rewrites its line, which makes one endless line of a log file; so where the standard error is no terminal,
    each tenth of the work is one line of the log.

    Args:
        title: What is done.
        total: Units of work in all.
        unit: What is counted, in the plural.
        done: Units that were there before.
        shown: False shows nothing.

    Yields:
        A function to call after each unit, or with a number of units.
    """
    if not shown or done >= total:
        yield _nothing
    elif sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, initial=done, desc=title, unit=f" {unit}", leave=False) as bar:
            yield bar.update
    else:
        yield _Tenths(title, total, unit, done).advance


def track(items: Collection[ItemT], title: str, *, unit: str, shown: bool = True) -> Iterator[ItemT]:
    """Pass items on, and show how many are done.

    Args:
        items: What is worked on, one after the other.
        title: What is done.
        unit: What is counted, in the plural.
        shown: False shows nothing.

    Yields:
        The items.
    """
    with show_progress(title, len(items), unit=unit, shown=shown) as advance:
        for item in items:
            yield item
            advance()


class _Tenths:
    """Writes a line to the log whenever a further tenth of the work is done."""

    def __init__(self, title: str, total: int, unit: str, done: int) -> None:
        self._title, self._total, self._unit, self._done = title, total, unit, done
        self._rate = unit in RATED
        self._started, self._before = perf_counter(), done

    def advance(self, units: int = 1) -> None:
        """Count units."""
        earlier, self._done = self._done, self._done + units
        if earlier * PARTS // self._total == self._done * PARTS // self._total:
            return
        seconds = perf_counter() - self._started
        left = seconds / (self._done - self._before) * (self._total - self._done)
        LOGGER.info(
            "%s: %d of %d %s%s, %.0f s gone, about %.0f s left",
            self._title,
            self._done,
            self._total,
            self._unit,
            f", {(self._done - self._before) / max(seconds, 1e-9):.3g} a second" if self._rate else "",
            seconds,
            left,
        )


def _nothing(_units: int = 1) -> None:
    """Show nothing."""
