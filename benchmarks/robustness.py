"""Kill the tiny job at random moments and damage its files: the results must be the same, every damage named.

``python -m benchmarks.robustness kills --number 50`` and ``python -m benchmarks.robustness damage --number 60``; on one
thread (``OMP_NUM_THREADS=1``).
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPLETED = re.compile(r"Using (synchronous)|Completed node: (\w+)")  # the first before any node runs
PRELOADED = (
    "torch",
    "torchvision",
    "foolbox",
    "sklearn.metrics",
    "matplotlib.pyplot",
    "pandas",
    "mlflow",
    "kedro.framework.cli.cli",
    "kedro_mlflow.framework.hooks.mlflow_hook",
    "adv_detect.settings",
    "adv_detect.pipelines.evaluation",
)
POLL_SECONDS = 0.002
HALF_SECONDS = 0.03  # for which a shard lies half-written in a run that is to be killed there
ROUND = 10  # kills of one project before it is run to its end and compared
NEVER_READ = (".csv", ".html", ".png")  # for people; no pipeline reads them back


@dataclass
class Run:
    """A ``kedro run --env=test`` in a process forked from this one, which has imported everything already.

    Attributes:
        pid: Of the process.
        log: File of its output.
    """

    pid: int
    log: Path

    def text(self) -> str:
        """Return what it has written so far, without line breaks."""
        return " ".join(self.log.read_text(encoding="utf-8", errors="replace").split())

    def completed(self) -> list[str]:
        """Return the nodes that are completed, after one entry for the begin of the work."""
        return [begin or node for begin, node in COMPLETED.findall(self.text())]

    def ended(self) -> int | None:
        """Return the exit code, None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return None if pid == 0 else os.waitstatus_to_exitcode(status)

    def wait(self) -> int:
        """Wait for its end and return the exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> int:
        """Kill it with SIGKILL and return the exit code."""
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()


def preload() -> None:
    """Import what a run needs, so that each start takes a second."""
    for name in PRELOADED:
        importlib.import_module(name)


def start(folder: Path, *options: str, half_written: bool = False) -> Run:
    """Start the job in a project folder.

    Args:
        folder: The project.
        *options: Further options of ``kedro run``.
        half_written: Whether shards lie half-written for a moment before they are whole.

    Returns:
        The run.
    """
    log = folder / "run.log"
    log.write_text("")
    pid = os.fork()
    if pid:
        return Run(pid, log)
    code = 1
    try:
        code = _child(folder, log, options, half_written)
    finally:
        os._exit(code)


def _child(folder: Path, log: Path, options: Sequence[str], half_written: bool) -> int:
    import atexit
    import traceback

    from kedro.framework.cli import main

    with log.open("a") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    os.chdir(folder)
    os.environ |= {"COLUMNS": "300", "DO_NOT_TRACK": "1"}
    if half_written:
        write_in_two_halves()
    sys.argv = ["kedro", "run", "--env=test", *options]
    code = 0
    try:
        main()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(bool(exc.code))
    except BaseException:
        code = 1
        sys.excepthook(*sys.exc_info())
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def write_in_two_halves() -> None:
    """Make this process write safetensors files in two halves with a moment between them."""
    from safetensors.torch import save

    from adv_detect.sharding import files

    def slow(tensors: dict[str, object], path: str, metadata: dict[str, str]) -> None:
        raw = save(tensors, metadata)  # type: ignore[arg-type]
        with Path(path).open("wb") as sink:
            sink.write(raw[: len(raw) // 2])
            sink.flush()
            time.sleep(HALF_SECONDS)
            sink.write(raw[len(raw) // 2 :])

    files.save_file = slow  # type: ignore[assignment]


def new_project(folder: Path) -> Path:
    """Make a project of its own with the configuration of this one."""
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "src").mkdir()
    return folder


def results(folder: Path) -> Path:
    """Return the folder of the results of the environment ``test``, whether it has one of its own or not."""
    own = folder / "data" / "test"
    return own if own.is_dir() else folder / "data"


def metrics_file(folder: Path) -> bytes:
    """Read the table of detection metrics."""
    return (results(folder) / "08_reporting" / "detection_metrics.csv").read_bytes()


def node_times(folder: Path) -> list[tuple[str, float]]:
    """Run the job undisturbed and measure its nodes.

    Args:
        folder: The project.

    Returns:
        Name and seconds of each node, in order.

    Raises:
        RuntimeError: The job failed.
    """
    run, moments, code = start(folder), [], None
    while code is None:
        time.sleep(POLL_SECONDS)
        code = run.ended()
        moments += [time.monotonic()] * (len(run.completed()) - len(moments))
    if code:
        raise RuntimeError(run.text()[-3000:])
    names = run.completed()[1:]
    return [(name, end - begin) for name, (begin, end) in zip(names, itertools.pairwise(moments), strict=True)]


def kill_within(folder: Path, node: int, delay: float, *, half_written: bool) -> bool:
    """Start the job and kill it some time after a node began, or while a shard of that node or a later one is written.

    Args:
        folder: The project.
        node: Place of the node in the order of work.
        delay: Seconds after its begin.
        half_written: Whether to wait for a temporary file then, and kill while it is there.

    Returns:
        Whether the job was killed; False where it had ended before.
    """
    run = start(folder, half_written=half_written)
    begin = None
    while True:
        if run.ended() is not None:
            return False
        if begin is None and len(run.completed()) > node:
            begin = time.monotonic()
        due = begin is not None and time.monotonic() >= begin + delay
        if due and (not half_written or temporary_files(folder)):
            return run.kill() == -signal.SIGKILL
        time.sleep(POLL_SECONDS)


def temporary_files(folder: Path) -> list[Path]:
    """List the files that are being written."""
    return list(results(folder).rglob("*.tmp-*")) if results(folder).is_dir() else []


def kills(number: int, folder: Path, seed: int = 0) -> Iterator[str]:
    """Kill the job again and again and compare what it ends with; where that is another table, the project is kept.

    Args:
        number: How many kills.
        folder: Empty folder to work in.
        seed: Of the moments.

    Yields:
        A line on each kill and each comparison.

    Raises:
        RuntimeError: A run that was not killed failed, or ended with other metrics.
    """
    rng = random.Random(seed)
    times = node_times(new_project(folder / "undisturbed"))
    expected = metrics_file(folder / "undisturbed")
    yield f"undisturbed: {len(times)} nodes in {sum(seconds for _, seconds in times):.1f} s"
    done = half = 0
    for place in range(0, number, ROUND):
        project = new_project(folder / f"round-{place // ROUND}")
        count = min(ROUND, number - place)
        # stages in order, another part of them in each round: what a killed run has finished is kept
        rounds = -(-number // ROUND)
        for index in range(count):
            node = (index * rounds + place // ROUND) * len(times) // (count * rounds)
            name, seconds = times[node]
            killed = kill_within(project, node, rng.random() * seconds * 0.9, half_written=index % 3 == 1)
            left = len(temporary_files(project))
            done, half = done + killed, half + bool(killed and left)
            yield f"{'killed' if killed else 'ended before the kill'} in {name}, {left} files half-written"
        run = start(project)
        if run.wait() or metrics_file(project) != expected:
            raise RuntimeError(f"the run after the kills ended otherwise: {run.text()[-3000:]}")
        yield "the same detection_metrics.csv, byte for byte"
        shutil.rmtree(project)
    yield f"{done} kills, {half} of them with a file half-written, all with the same detection_metrics.csv"


def flip(raw: bytes, rng: random.Random) -> bytes:
    """Flip one bit."""
    place = rng.randrange(len(raw))
    return raw[:place] + bytes([raw[place] ^ (1 << rng.randrange(8))]) + raw[place + 1 :]


def truncate(raw: bytes, rng: random.Random) -> bytes:
    """Cut off the end, at times all."""
    return raw[: rng.randrange(len(raw))]


def zero(raw: bytes, rng: random.Random) -> bytes:
    """Fill a stretch that is not zero with zeros."""
    place = rng.choice([index for index, byte in enumerate(raw) if byte])
    return raw[:place] + bytes(min(64, len(raw) - place)) + raw[place + 64 :]


DAMAGES = (flip, truncate, zero)


def files_read_back(folder: Path) -> list[Path]:
    """List the result files that a pipeline reads."""
    files = [path for path in sorted(results(folder).rglob("*")) if path.is_file() and "01_raw" not in path.parts]
    return [path for path in files if path.suffix not in NEVER_READ and path.name[0] != "." and path.stat().st_size]


def one_of_each_kind(paths: Sequence[Path], number: int, rng: random.Random) -> list[Path]:
    """Choose files so that all folders and suffixes have their turn."""
    kinds: dict[tuple[Path, str, str], list[Path]] = {}
    for path in paths:
        lone = path.name if len(path.relative_to(path.parents[1]).parts) and path.parent.name[:1].isdigit() else ""
        kinds.setdefault((path.parent, path.suffix, lone), []).append(path)
    groups = [rng.sample(group, len(group)) for group in kinds.values()]
    rng.shuffle(groups)
    turns = [group[turn] for turn in range(max(map(len, groups))) for group in groups if turn < len(group)]
    return [turns[index % len(turns)] for index in range(number)]


def notice(path: Path) -> str:
    """Read a file of the results as the pipelines do.

    Args:
        path: The file.

    Returns:
        The message of the error that names it, empty where nobody notices.
    """
    from fsspec.implementations.local import LocalFileSystem

    from adv_detect.datasets.whole_files import compare_digest, digest_path
    from adv_detect.errors import DamagedFileError
    from adv_detect.sharding import files

    fs = LocalFileSystem()
    try:
        if path.suffix == ".safetensors":
            files.read_tensors(fs, str(path))
        elif Path(digest_path(str(path))).exists():
            compare_digest(fs, str(path))
        elif path.suffix == ".json":
            files.read_json(fs, str(path))
    except DamagedFileError as exc:
        return str(exc)
    return ""


def damage(number: int, folder: Path, seed: int = 0, project: Path | None = None) -> Iterator[str]:
    """Damage files of a finished job, see that each is named, and run it again.

    Args:
        number: How many files, one after the other; the job is run again when all distinct files had their turn.
        folder: Empty folder to work in.
        seed: Of the choice.
        project: A finished project; None runs one.

    Yields:
        A line on each file.

    Raises:
        RuntimeError: A damage was not noticed, or the run after it failed or ended with other metrics.
    """
    rng = random.Random(seed)
    if project is None:
        project = new_project(folder / "damaged")
        node_times(project)
    expected = metrics_file(project)
    chosen = one_of_each_kind(files_read_back(project), number, rng)
    for index, path in enumerate(chosen):
        how, raw = DAMAGES[index % len(DAMAGES)], path.read_bytes()
        path.write_bytes(how(raw, rng))
        message = notice(path)
        if path.name not in message:
            raise RuntimeError(f"nobody notices that {path} was damaged ({how.__name__})")
        yield f"{how.__name__}: {message}"
    run = start(project)
    if run.wait() or metrics_file(project) != expected:
        raise RuntimeError(f"the run after the damages ended otherwise: {run.text()[-3000:]}")
    left = [str(path) for path in files_read_back(project) if notice(path)]
    if left:
        raise RuntimeError(f"still damaged after a run: {left}")
    yield f"{number} damages of {len(set(chosen))} files noticed; the same detection_metrics.csv after a run"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the two and print its lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("kills", "damage"))
    parser.add_argument("--number", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    preload()
    what = {"kills": kills, "damage": damage}[options.what]
    begin = time.monotonic()
    folder = Path(tempfile.mkdtemp())  # not TemporaryDirectory: a forked run would delete it at its end
    for line in what(options.number, folder, options.seed):
        print(f"{time.monotonic() - begin:7.1f} s  {line}", flush=True)
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
