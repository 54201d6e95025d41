"""Project folders of their own, for whole runs in tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import torch
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

NETWORK = ("06_models/network.safetensors", "06_models/network.json")
"""Files of the trained network, for `take_over`."""
TWIN = ("06_models/twin.safetensors", "06_models/twin.json")
"""Files of the second network, likewise."""
RESULTS = "data/test"
"""Where the environment ``test`` keeps its results, in a project."""
DEADLINE_SECONDS = 600.0
KEDRO = (sys.executable, "-m", "kedro")


def command(folder: Path, *options: str, program: tuple[str, ...] = KEDRO) -> subprocess.Popen[str]:
    """Start ``kedro run --env=test`` in a project folder, afresh or by another program."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [*program, "run", "--env=test", *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def new_project(folder: Path, source: Path) -> Path:
    """A project of its own with the configuration of this one: its data and its runs lie apart."""
    shutil.copytree(source / "conf", folder / "conf")
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy(source / name, folder)
    (folder / "src").mkdir()
    return folder


def take_over(folder: Path, source: Path, *names: str) -> None:
    """Copy results from another project."""
    for name in names:
        (folder / RESULTS / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / RESULTS / name, folder / RESULTS / name)


@contextlib.contextmanager
def session(folder: Path, *, environment: str = "test", **parameters: object) -> Iterator[KedroSession]:
    """A Kedro session in this process, on one thread; what it changes is restored."""
    tracking = os.environ.get("MLFLOW_TRACKING_URI")  # None unless a test asked for a store
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contextlib.chdir(folder):
            bootstrap_project(folder)
            with KedroSession.create(project_path=folder, env=environment, runtime_params=parameters) as one:
                yield one
        assert mlflow.active_run() is None, "the run of the session is still open"
    finally:
        while mlflow.active_run() is not None:
            mlflow.end_run()
        mlflow.set_tracking_uri(tracking)
        # empty: follows the tracking URI again, else the next session would register its models in this one's place
        mlflow.set_registry_uri("")
        torch.set_num_threads(threads)
