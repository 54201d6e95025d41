"""One worker process: it works on tasks that its parent sends, and ends with it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from adv_detect.errors import WorkerError
from adv_detect.memory import keep_freed_memory

PACKAGE = __name__.split(".", maxsplit=1)[0]
Work = Callable[[Any], Any]


@dataclass(frozen=True)
class Outcome:
    """Result of a task: a value or an error, and the log records."""

    value: Any
    error: Exception | _Unsendable | None
    records: list[logging.LogRecord]

    @property
    def cause(self) -> Exception | None:
        """The error as it was raised."""
        return self.error.revive() if isinstance(self.error, _Unsendable) else self.error


def send(to: Connection, content: Any) -> None:
    """Send anything that can be pickled, tensors by value."""
    to.send_bytes(pickle.dumps(content))  # send() would share tensors, which an end of the process takes away


def receive(from_: Connection) -> Any:
    """Wait for what the other side sends."""
    return pickle.loads(from_.recv_bytes())


def serve(parent: Connection, level: int) -> None:
    """Work on tasks until the parent closes the connection, or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    logging.getLogger(PACKAGE).setLevel(level)
    with suppress(EOFError, BrokenPipeError):
        while True:
            send(parent, _work_on(*receive(parent)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _work_on(path: str, task: Any) -> Outcome:
    records = _Records()
    logging.getLogger().addHandler(records)
    try:
        return Outcome(_read(path)(task), None, records.found)
    except Exception as exc:
        exc.add_note(f"in a worker process:\n{traceback.format_exc()}")
        return Outcome(None, _sendable(exc), records.found)
    finally:
        logging.getLogger().removeHandler(records)


@lru_cache(maxsize=1)
def _read(path: str) -> Work:
    with Path(path).open("rb") as file:
        work: Work = pickle.load(file)
    return work


class _Records(QueueHandler):
    """Keeps what is logged, in a form that can be sent."""

    def __init__(self) -> None:
        self._kept: SimpleQueue[logging.LogRecord] = SimpleQueue()
        super().__init__(self._kept)

    @property
    def found(self) -> list[logging.LogRecord]:
        return [self._kept.get() for _ in range(self._kept.qsize())]


@dataclass(frozen=True)
class _Unsendable:
    """Name and message of an error that cannot be sent to another process."""

    name: str
    message: str

    def revive(self) -> Exception:
        kind: type[Exception] = type(self.name, (WorkerError,), {})
        return kind(self.message)


def _sendable(error: Exception) -> Exception | _Unsendable:
    with suppress(Exception):
        pickle.loads(pickle.dumps(error))
        return error
    return _Unsendable(type(error).__name__, str(error))
