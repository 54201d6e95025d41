"""The main job end to end: time of each stage, peak memory."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from benchmarks.harness import KIB, Row, Settings

ROOT = Path(__file__).resolve().parents[1]
DONE = re.compile(r"(\d\d:\d\d:\d\d) .*Completed node: (\w+)")
START = re.compile(r"(\d\d:\d\d:\d\d) .*Using synchronous mode")
STAGES = {
    "train_target": "network", "describe_target": "network", "extract_class_features": "features",
    "compute_representatives": "representatives", "split_sources": "attacks", "generate_adversarials": "attacks",
    "collect_records": "attacks", "compute_trajectories": "trajectories",
    "compute_control_trajectories": "trajectories", "train_detectors": "detectors", "collect_histories": "detectors",
    "summarise_detectors": "detectors", "assemble_champion": "detectors",
}  # fmt: skip


def measure_main_job(settings: Settings) -> Iterator[Row]:
    """`kedro run` in a fresh copy of the configuration; stages from the times in its log."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "conf", folder / "conf")
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / "src").mkdir()
        environment = ["--env=test"] if settings.quick else []
        done = subprocess.run(
            [sys.executable, "-m", "kedro", "run", *environment],
            cwd=folder,
            env=os.environ | {"DO_NOT_TRACK": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"the main job failed: {done.stderr[-2000:]}")
    shares = stage_seconds(done.stdout)
    total = sum(shares.values())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * KIB / 2**30
    note = f"peak memory {peak:.2f} GiB (limit 3)"
    yield Row("main job", "whole run, seconds", (total,), note, goal=300.0, at_most=True, unit="s")
    for stage, spent in shares.items():
        yield Row("main job", f"share of {stage}", (spent / total,), f"{spent:.0f} s", unit="")


def stage_seconds(log: str) -> dict[str, float]:
    """Seconds of each stage, from the time stamps of a run's log; what is in no stage is evaluation."""
    started = START.search(log)
    if started is None:
        raise RuntimeError("the log of the main job says nowhere when it started")
    last = datetime.strptime(started[1], "%H:%M:%S")
    found: dict[str, float] = {}
    for stamp, node in DONE.findall(log):
        now = datetime.strptime(stamp, "%H:%M:%S")
        stage = STAGES.get(node, "evaluation and report")
        found[stage] = found.get(stage, 0.0) + (now - last).total_seconds() % 86_400
        last = now
    return found
