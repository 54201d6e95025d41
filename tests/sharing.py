"""Division of the tests among processes: what starts first, and folders that are made once for all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

LONGEST = (
    "test_run.py",
    "test_speedups.py",
    "test_docs.py",
    "pipelines/twin_training/test_nodes.py",
    "pipelines/adaptive_attack/test_substitute.py",
    "pipelines/adversarial_generation/test_nodes.py",
    "pipelines/face_recognition/test_pipeline.py",
    "pipelines/test_ray_plans.py",
    "serving/test_served_model.py",
    "test_configurations.py",
)
"""Files that take longest, below ``tests``: they start first, so that processes which share the tests end together."""


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder of this process with what ``make`` made in the first process that asked.

    Args:
        factory: Of the test session.
        name: Of the folder.
        make: Fills an empty folder.
    """
    own = factory.mktemp(name)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        make(own)
        return own
    shared = factory.getbasetemp().parent / f"shared-{name}"
    complete = shared.with_name(f"{shared.name}.complete")
    with FileLock(shared.with_name(f"{shared.name}.lock")):
        if not complete.exists():
            shutil.rmtree(shared, ignore_errors=True)  # an attempt that failed
            shared.mkdir()
            make(shared)
            complete.touch()
        shutil.copytree(shared, own, dirs_exist_ok=True)
    return own
