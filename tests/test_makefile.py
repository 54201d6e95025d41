"""What `make clean` takes away and what it leaves."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

GONE = (
    "data/02_intermediate/a",
    "data/08_reporting/report.html",
    "data/mine/06_models/network.safetensors",
    "data/mine/.run.lock",
    "data/.run.json",
    "mlflow.db",
    "mlruns/1/a",
    ".venv/a",
)
KEPT = (
    "data/.gitkeep",
    "data/01_raw/a.png",
    "data/01_raw/02_intermediate/a.png",
    "data/01_raw/.run.lock",
    "data/photos/02_summer/a.png",
    "data/photos/a.png",
    "src/a.py",
)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_help_lists_every_command(project):
    listed = subprocess.run(["make", "-s", "help"], cwd=project, check=True, capture_output=True, text=True).stdout
    text = (project / "Makefile").read_text(encoding="utf-8")
    [commands] = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)

    assert {line.split()[0] for line in listed.splitlines()} == set(commands.split())


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_clean_takes_results_of_every_environment_and_no_raw_data(project, tmp_path):
    shutil.copy(project / "Makefile", tmp_path)
    for name in GONE + KEPT:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)

    assert [name for name in GONE if Path(tmp_path, name).exists()] == []
    assert [name for name in KEPT if not Path(tmp_path, name).exists()] == []
    assert not (tmp_path / "data" / "mine").exists()
