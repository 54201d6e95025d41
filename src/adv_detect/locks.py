"""Locks between processes: one run at a time writes into a folder of results.

The operating system frees them when their process ends, however it ends, so a file that a killed run left behind blocks
nobody. Who only reads takes none.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from adv_detect.errors import BusyError

LOCK = ".run.lock"
HOLDER = ".run.json"
LONGEST_COMMAND = 200  # characters, in a message


class RunLock:
    """The right to write into a folder of results.

    Example::

        with RunLock(Path("data"), wait_seconds=0):
            ...
    """

    def __init__(self, folder: Path, *, wait_seconds: float = 0.0) -> None:
        """Name the folder.

        Args:
            folder: Folder of results; made where it is missing.
            wait_seconds: How long to wait for another run to end.
        """
        self._folder, self._wait = folder, wait_seconds
        folder.mkdir(parents=True, exist_ok=True)
        # not the thread's own: in a notebook a run may begin and end in different threads
        self._lock = FileLock(folder / LOCK, thread_local=False)

    def acquire(self) -> RunLock:
        """Take the lock.

        Raises:
            BusyError: Another run has it; the message says who.
        """
        try:
            self._lock.acquire(timeout=self._wait, poll_interval=min(0.5, self._wait or 0.5))
        except Timeout as exc:
            raise BusyError(
                f"expected no other run that writes into {self._folder}, got {self._holder()}; let it end, run another "
                "environment meanwhile, or wait for it with --params=runtime.wait_seconds=3600"
            ) from exc
        (self._folder / HOLDER).write_text(json.dumps(_this_process()), encoding="utf-8")
        return self

    def release(self) -> None:
        """Give the lock back; one that is not held stays so."""
        if self._lock.is_locked:
            with suppress(OSError):
                (self._folder / HOLDER).unlink()
            self._lock.release()

    def __enter__(self) -> RunLock:
        """Take the lock."""
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        """Give the lock back."""
        self.release()

    def _holder(self) -> str:
        try:
            found = json.loads((self._folder / HOLDER).read_text(encoding="utf-8"))
            return "`{command}`, process {pid} on {host}, since {since}".format(**found)
        except (OSError, ValueError, KeyError, TypeError):  # it has just begun or is about to end
            return "one that has just begun"


def _this_process() -> dict[str, object]:
    program = Path(sys.argv[0] or sys.executable)
    name = program.parent.name if program.name == "__main__.py" else program.name
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "command": shlex.join([name, *sys.argv[1:]])[:LONGEST_COMMAND],
    }
