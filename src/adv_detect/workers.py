"""Worker processes of one thread each, started once for a run.

They are those of loky: fresh interpreters that do not run the main module of this process again, so a script needs no
guard, and classes of a notebook travel by value. What they compute does not depend on how many there are.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import pickle
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from logging.handlers import QueueHandler
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from adv_detect.errors import WorkerError
from adv_detect.memory import keep_freed_memory

if TYPE_CHECKING:
    from loky import ProcessPoolExecutor

PACKAGE = __name__.split(".", maxsplit=1)[0]
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
WATCH_SECONDS = 1.0
ENDED = re.compile(r"(SIG[A-Z]+|EXIT)\((-?\d+)\)")  # as loky tells it

Work = Callable[[Any], Any]


class TaskError(Exception):
    """A task failed; what went wrong is its cause.

    Args:
        position: Which one.
    """

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class Workers:
    """Processes that work on tasks side by side; they start with the first task.

    Args:
        count: Number of processes.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def run(self, work: Work, tasks: Sequence[Any], done: Callable[[int, Any], object]) -> None:
        """Call a function with every task; as many at once as there are processes, begun in order.

        After an error or an interruption the processes are ended, whatever they are at.

        Args:
            work: The function; it goes to each process once, by value where it cannot be imported there.
            tasks: Its arguments, picklable.
            done: Called in this process with position and result of each task as it ends.

        Raises:
            TaskError: A task raised an error; or a process ended, which leaves open at which of the tasks under way, so
                the first of them is named. The cause says so.
        """
        with _in_a_file(work) as path:
            try:
                self._run(path, tasks, done)
            except BaseException:
                self.kill()
                raise

    def close(self) -> None:
        """End the idle processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None

    def kill(self) -> None:
        """End the processes at once."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=True)
            self._pool = None

    def _run(self, path: str, tasks: Sequence[Any], done: Callable[[int, Any], object]) -> None:
        pool = self._started()
        with _this_package_first():
            position_of = {pool.submit(_work_on, path, task): position for position, task in enumerate(tasks)}
        waiting: set[Future[_Outcome]] = set(position_of)
        while waiting:
            ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in sorted(ended, key=position_of.__getitem__):
                done(position_of[future], _result(future, position_of[future]))

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            from loky import ProcessPoolExecutor

            level = logging.getLogger(PACKAGE).getEffectiveLevel()
            self._pool = ProcessPoolExecutor(
                self.count,
                initializer=_begin,
                initargs=(os.getpid(), multiprocessing.get_start_method(), level),
                env=ONE_THREAD,
            )
        return self._pool


_OPEN: dict[int, Workers] = {}
_TURN = threading.RLock()


def run_in_workers(count: int, work: Work, tasks: Sequence[Any], done: Callable[[int, Any], object]) -> None:
    """Call a function with every task in the workers of this process, as :meth:`Workers.run` does.

    They are started once, and anew where another number is asked for. Threads take turns.

    Args:
        count: Number of processes.
        work: The function.
        tasks: Its arguments.
        done: Called with position and result of each task.
    """
    with _TURN:
        if count not in _OPEN:
            close_workers()
        _OPEN.setdefault(count, Workers(count)).run(work, tasks, done)


@atexit.register  # before Python itself waits for their end
def close_workers() -> None:
    """End the workers of this process, if there are any."""
    with _TURN:
        while _OPEN:
            _OPEN.popitem()[1].close()


@dataclass(frozen=True)
class _Outcome:
    """Value or error of a task, and what was logged there."""

    value: Any
    error: Exception | _Unsendable | None
    records: list[logging.LogRecord]

    @property
    def cause(self) -> Exception | None:
        """The error as it was raised."""
        return self.error.revive() if isinstance(self.error, _Unsendable) else self.error


def _result(future: Future[_Outcome], position: int) -> Any:
    """Take the outcome of a task, and log what was logged there."""
    from loky.process_executor import BrokenProcessPool

    try:
        outcome = future.result()
    except BrokenProcessPool as exc:
        raise TaskError(position) from _death(exc)
    for record in outcome.records:
        logging.getLogger(record.name).handle(record)
    if outcome.error is not None:
        raise TaskError(position) from outcome.cause
    return outcome.value


def _death(exc: Exception) -> WorkerError:
    found = ENDED.search(str(exc))
    how = "itself" if found is None else f"exit code {found[2]}" if found[1] == "EXIT" else f"signal {found[1]}"
    error = WorkerError(
        f"expected the worker processes to live until the work is done, got the end by {how} of the one at this task, "
        "or of one beside it; where memory ran out, lower runtime.processes or runtime.shard_size"
    )
    error.__cause__ = exc
    return error


@contextmanager
def _this_package_first() -> Iterator[None]:
    """Let processes that start now import this package: a loaded model may have put a copy of its code before it."""
    here = str(Path(__file__).parents[1])
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


@contextmanager
def _in_a_file(work: Work) -> Iterator[str]:
    """Write a function to a temporary file, which each process reads once."""
    import cloudpickle

    handle, path = tempfile.mkstemp(prefix=f"{PACKAGE}-", suffix=".work")
    try:
        with os.fdopen(handle, "wb") as file:
            cloudpickle.dump(work, file)
        yield path
    finally:
        Path(path).unlink()


def _begin(parent: int, start_method: str, level: int) -> None:
    """Prepare a process; those that it starts itself start as they would from the parent."""
    multiprocessing.set_start_method(start_method, force=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    keep_freed_memory()
    logging.getLogger(PACKAGE).setLevel(level)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def _work_on(path: str, task: Any) -> _Outcome:
    records = _Records()
    logging.getLogger().addHandler(records)
    try:
        return _Outcome(_read(path)(task), None, records.found)
    except Exception as exc:
        exc.add_note(f"in a worker process:\n{traceback.format_exc()}")
        return _Outcome(None, _sendable(exc), records.found)
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
