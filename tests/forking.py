"""Commands that begin with the slow imports done: a process that has them forks one for each command.

A page of the documentation runs some ten commands, and most of what each costs is importing PyTorch, MLflow and Kedro
anew. Here ``kedro`` and ``python`` are stand-ins that ask one process, begun afresh and otherwise idle, to fork; the
child gets arguments, environment, folder and open files of the stand-in, and its end is that of the stand-in. What a
command imports, or leaves behind, stays in its own process. Whole runs from nothing stand in ``test_run.py``.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

IMPORTED = (
    "adv_detect.interface",
    "adv_detect.pipeline_registry",
    "foolbox",
    "kedro.framework.cli.cli",
    "kedro.framework.session",
    "kedro_mlflow.framework.hooks.mlflow_hook",
    "matplotlib.backends.backend_agg",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "pandas",
    "pyarrow.parquet",
    "sklearn.linear_model",
    "torch",
    "torchvision",
)
STAND_IN = '#!/bin/sh\nexec "{python}" -I -S "{file}" "{address}" {before} "$@"\n'
LONGEST = 1 << 20
MORE = 0.05  # seconds between two looks
LONGEST_START = 300.0  # seconds


@contextlib.contextmanager
def stand_ins() -> Iterator[Path]:
    """A folder for PATH with ``kedro`` and ``python``, as long as the process lives that forks for them."""
    with tempfile.TemporaryDirectory() as scratch:  # the address of a socket takes some hundred characters at most
        folder, address = Path(scratch, "bin"), str(Path(scratch, "asked"))
        write_stand_ins(folder, address)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        command = [sys.executable, __file__, "serve", address]
        process = subprocess.Popen(command, env=environment)
        try:
            yield folder
        finally:
            process.kill()
            process.wait()


def write_stand_ins(folder: Path, address: str) -> None:
    """Write ``kedro`` and ``python`` into a folder for PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, before in (("kedro", "-m kedro"), ("python", "")):
        text = STAND_IN.format(python=sys.executable, file=Path(__file__).resolve(), address=address, before=before)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def ask(address: str, arguments: list[str]) -> int:
    """Have a command run, with the files that are open here; give its exit status."""
    told = json.dumps({"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX) as one:
        deadline = time.monotonic() + LONGEST_START
        while one.connect_ex(address):  # it is still importing
            if time.monotonic() > deadline:
                sys.exit(
                    f"{address}: expected a process that forks to listen there within {LONGEST_START:.0f} s, got none"
                )
            time.sleep(MORE)
        files = array.array("i", (0, 1, 2))
        one.sendmsg([len(told).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        one.sendall(told)
        answer = one.recv(16)
    return int(answer) if answer else 1


def serve(address: str) -> None:
    """Import, then fork for every command until the end of this process."""
    from importlib import import_module

    for name in IMPORTED:
        import_module(name)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(address)
        one.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            asked, _ = one.accept()
            if os.fork() == 0:
                one.close()
                _watch(asked)
            asked.close()


def _watch(asked: socket.socket) -> None:
    """Run a command in a child, tell its exit status, end it where nobody waits any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, files, _, _ = socket.recv_fds(asked, 8, 3)
    left, told = int.from_bytes(head, "big"), b""
    while len(told) < left:
        told += asked.recv(min(LONGEST, left - len(told)))
    child = os.fork()
    if child == 0:
        asked.close()
        _run(json.loads(told), files)
    for file in files:
        os.close(file)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            asked.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            os._exit(0)
        if select.select([asked], [], [], MORE)[0]:
            os.kill(child, signal.SIGKILL)
            os._exit(1)


def _run(told: dict, files: list[int]) -> None:
    import atexit
    import runpy
    import threading

    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    first, *others = told["arguments"]
    code = 0
    sys.path[:0] = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    try:
        if first in ("-c", "-m"):
            what, *others = others
            sys.path.insert(0, "")
        sys.argv = [first if first == "-c" else what if first == "-m" else first, *others]
        if first == "-c":
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
        elif first == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(first).resolve().parent))
            runpy.run_path(first, run_name="__main__")
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        if isinstance(exc.code, str):
            sys.stderr.write(f"{exc.code}\n")
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
