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

from benchmarks.measure import Row, Settings, family_memory_mib

ROOT = Path(__file__).resolve().parents[1]
GROUP = "main job"
GOAL_SECONDS = 240.0
READERS_ONLY, READERS_GOAL_SECONDS = ROOT / "benchmarks" / "readers_only.yml", 130.0
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
    """`kedro run` on the embedded images, from nothing, in a fresh copy of the configuration; then a smaller scope."""
    environment = "test" if settings.quick else "base"
    yield from _rows("`kedro run`", settings, GOAL_SECONDS, "--env", environment)
    if not settings.quick:  # the environment of tests has no such scope
        yield from _rows("readers alone", settings, READERS_GOAL_SECONDS, "--config", str(READERS_ONLY))


def _rows(label: str, settings: Settings, goal: float, *options: str) -> Iterator[Row]:
    """The whole run, then each stage."""
    with fresh_project() as folder:
        log, spent, peak = run_kedro(folder, *options)
    shares = stage_seconds(log)
    start = spent - sum(shares.values())
    worse = f"{peak:,.0f} MiB" if peak > MEMORY_LIMIT_MIB else ""
    scope = " ".join((options[0], Path(options[1]).name))
    note = f"{scope}; peak memory {peak:,.0f} MiB (limit {MEMORY_LIMIT_MIB:,})"
    outcome = {"peak_mib": peak}
    whole = None if settings.quick else goal
    yield Row(GROUP, f"{label}, whole", (spent,), note, whole, at_most=True, unit="s", worse=worse, outcome=outcome)
    for stage, part in {"start and end": start, **shares}.items():
        yield Row(GROUP, f"{label}, share of {stage}", (100 * part / spent,), f"{part:.0f} s", unit="%")


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
    """Wait for the end of a process; the most memory in MiB that it and its worker processes took at one time."""
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, family_memory_mib(process.pid))
        time.sleep(POLL_SECONDS)
    return peak


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
