"""The main job end to end: time of each stage, peak memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from benchmarks.measure import Row, Settings, children_of, peak_mib

ROOT = Path(__file__).resolve().parents[1]
GROUP = "main job"
GOAL_SECONDS = 300.0
MEMORY_LIMIT_MIB = 3 * 1024
POLL_SECONDS = 0.2
DONE = re.compile(r"(\d\d:\d\d:\d\d) .*Completed node: (\w+)")
START = re.compile(r"(\d\d:\d\d:\d\d) .*Using synchronous mode")
REST = "evaluation and report"
STAGES = {
    "train_target": "network", "describe_target": "network", "extract_class_features": "features",
    "train_twin": "twin", "describe_twin": "twin",
    "compute_representatives": "representatives", "split_sources": "attacks", "generate_adversarials": "attacks",
    "collect_records": "attacks", "compute_activations": "activations",
    "compute_control_activations": "activations", "compute_benign_activations": "activations",
    "train_detectors": "detectors", "collect_histories": "detectors",
    "summarise_detectors": "detectors", "make_controls": "detectors", "fix_thresholds": "detectors",
    "assemble_champion": "detectors", "score_images": "scores",
}  # fmt: skip


def measure_main_job(settings: Settings) -> Iterator[Row]:
    """`kedro run` on the embedded images, from nothing, in a fresh copy of the configuration."""
    environment = "test" if settings.quick else "base"
    log, spent, peak = run_main_job(environment)
    shares = stage_seconds(log)
    start = spent - sum(shares.values())
    goal = None if settings.quick else GOAL_SECONDS
    worse = f"{peak:,.0f} MiB" if peak > MEMORY_LIMIT_MIB else ""
    note = f"environment {environment}; peak memory {peak:,.0f} MiB (limit {MEMORY_LIMIT_MIB:,})"
    outcome = {"peak_mib": peak}
    name = "`kedro run`, whole"
    yield Row(GROUP, name, (spent,), note, goal, at_most=True, unit="s", worse=worse, outcome=outcome)
    for stage, part in {"start and end": start, **shares}.items():
        yield Row(GROUP, f"share of {stage}", (100 * part / spent,), f"{part:.0f} s", unit="%")


def run_main_job(environment: str) -> tuple[str, float, float]:
    """Run the main job.

    Returns:
        Its log, its seconds from start to end of the process, and the peak of its memory in MiB.

    Raises:
        RuntimeError: It failed.
    """
    with fresh_project() as folder:
        return run_kedro(folder, "--env", environment)


@contextmanager
def fresh_project() -> Iterator[Path]:
    """A temporary folder with the configuration and nothing else."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        for part in ("src", "conf/local"):
            (folder / part).mkdir()
        yield folder


def run_kedro(folder: Path, *options: str) -> tuple[str, float, float]:
    """Do one `kedro run` in a project.

    Args:
        folder: The project.
        options: Of `kedro run`.

    Returns:
        Its log, its seconds from start to end of the process, and the peak of its memory in MiB.

    Raises:
        RuntimeError: It failed.
    """
    log = folder / "log"
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "kedro", "run", *options],
            cwd=folder,
            env=os.environ | {"DO_NOT_TRACK": "1"},
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        peak = _watch(process)
    spent = time.perf_counter() - started
    text = log.read_text(encoding="utf-8")
    if process.returncode:
        raise RuntimeError(f"kedro run {' '.join(options)} failed: {text[-2000:]}")
    return text, spent, peak


def _watch(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end of a process; the sum of its peak memory and those of its worker processes in MiB."""
    peaks: dict[int, float] = {}
    while process.poll() is None:
        for one in (process.pid, *children_of(process.pid)):
            peaks[one] = max(peaks.get(one, 0.0), peak_mib(one))
        time.sleep(POLL_SECONDS)
    return sum(peaks.values())


def stage_seconds(log: str) -> dict[str, float]:
    """Seconds of each stage, from the time stamps of a run's log; what is in no stage is evaluation."""
    started = START.search(log)
    if started is None:
        raise RuntimeError("the log of the main job says nowhere when it started")
    last = datetime.strptime(started[1], "%H:%M:%S")
    found: dict[str, float] = {}
    for stamp, node in DONE.findall(log):
        now = datetime.strptime(stamp, "%H:%M:%S")
        stage = STAGES.get(node, REST)
        found[stage] = found.get(stage, 0.0) + (now - last).total_seconds() % 86_400
        last = now
    return found
