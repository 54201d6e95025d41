"""Worker processes of one thread each, started once for a run.

They begin as fresh interpreters (``spawn``) that do not run the main module of this process again, so a script needs no
guard, and classes of a notebook travel by value. What they compute does not depend on how many there are.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from adv_detect.errors import WorkerError
from adv_detect.worker_process import PACKAGE, Outcome, Work, receive, send, serve

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
END_SECONDS = 10.0


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
        self._workers: list[_Worker] = []

    def run(self, work: Work, tasks: Sequence[Any], done: Callable[[int, Any], object]) -> None:
        """Call a function with every task; as many at once as there are processes, begun in order.

        After an error or an interruption the processes are ended, whatever they are at.

        Args:
            work: The function; it goes to each process once, by value where it cannot be imported there.
            tasks: Its arguments, picklable.
            done: Called in this process with position and result of each task as it ends.

        Raises:
            TaskError: A task raised an error, or its process ended; the cause says so.
        """
        with _in_a_file(work) as path:
            try:
                self._run(path, tasks, done)
            except BaseException:
                self.kill()
                raise

    def close(self) -> None:
        """End the idle processes."""
        for worker in self._workers:
            worker.connection.close()
        self._join()

    def kill(self) -> None:
        """End the processes at once."""
        for worker in self._workers:
            worker.process.kill()
        self._join()

    def _join(self) -> None:
        while self._workers:
            worker = self._workers.pop()
            worker.process.join()
            worker.connection.close()

    def _run(self, path: str, tasks: Sequence[Any], done: Callable[[int, Any], object]) -> None:
        self._start()
        waiting, idle, busy = iter(enumerate(tasks)), list(self._workers), dict[Connection, tuple[int, _Worker]]()
        while True:
            for worker, (position, task) in zip(idle, waiting, strict=False):
                worker.begin(path, task, position)
                busy[worker.connection] = position, worker
            if not busy:
                return
            ready = connection.wait(busy)
            ended = [busy.pop(one) for one in list(busy) if one in ready]
            idle = [worker for _, worker in ended]
            for position, worker in ended:
                done(position, worker.result(position))

    def _start(self) -> None:
        """Start the processes, and others for those that ended meanwhile."""
        self._workers = [worker for worker in self._workers if worker.process.is_alive()]
        with _one_thread_each(), _main_module_hidden():
            self._workers += [_Worker() for _ in range(self.count - len(self._workers))]


class _Worker:
    """A process and the connection to it.

    Attributes:
        process: The process.
        connection: Tasks go out through it, outcomes come back.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, far_end = context.Pipe()
        level = logging.getLogger(PACKAGE).getEffectiveLevel()
        self.process = context.Process(target=serve, args=(far_end, level))
        self.process.start()
        far_end.close()  # the end of the process is the end of the connection

    def begin(self, path: str, task: Any, position: int) -> None:
        """Send a task."""
        try:
            send(self.connection, (path, task))
        except OSError as exc:
            raise TaskError(position) from self._death(exc)

    def result(self, position: int) -> Any:
        """Take the outcome of the task, and log what was logged there."""
        try:
            outcome: Outcome = receive(self.connection)
        except (EOFError, OSError) as exc:
            raise TaskError(position) from self._death(exc)
        for record in outcome.records:
            logging.getLogger(record.name).handle(record)
        if outcome.error is not None:
            raise TaskError(position) from outcome.cause
        return outcome.value

    def _death(self, exc: Exception) -> WorkerError:
        self.process.join(END_SECONDS)
        code = self.process.exitcode
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        error = WorkerError(
            f"expected its worker process to live until the work is done, got its end by {how}; where memory ran out, "
            "lower runtime.processes or runtime.shard_size"
        )
        error.__cause__ = exc
        return error


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


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that start now compute in one thread, also where a library counts the cores when it is loaded."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep processes that start now from running the main module: scripts without a guard would start over."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
