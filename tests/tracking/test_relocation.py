from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from adv_detect.tracking.relocation import PROJECT_TAG, relocate


def make(project: Path, locations: dict[int, str], tags: dict[int, str], runs: tuple[str, ...] = ()) -> Path:
    """A database with the tables that matter, in MLflow's form."""
    project.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(project / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER, artifact_location TEXT)")
        database.execute("CREATE TABLE experiment_tags (experiment_id INTEGER, key TEXT, value TEXT)")
        database.execute("CREATE TABLE runs (artifact_uri TEXT)")
        database.executemany("INSERT INTO experiments VALUES (?, ?)", locations.items())
        database.executemany(f"INSERT INTO experiment_tags VALUES (?, '{PROJECT_TAG}', ?)", tags.items())
        database.executemany("INSERT INTO runs VALUES (?)", [(run,) for run in runs])
    return project


def read(project: Path, question: str) -> list[str]:
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        return [value for (value,) in database.execute(question)]


def test_locations_below_the_former_folder_are_rewritten_and_no_others(tmp_path):
    old, new = tmp_path / "old place", tmp_path / "new place"
    runs = (f"{old.as_uri()}/mlruns/a", f"{old}/mlruns/b", f"{old}er/mlruns/c", "s3://bucket/d", "file:///big/mlruns/e")
    make(new, {0: f"{old}/mlruns/0", 1: f"{old.as_uri()}/mlruns", 2: "file:///big/mlruns"}, {1: str(old)}, runs)

    assert relocate(new) == [str(old)]

    assert read(new, "SELECT artifact_uri FROM runs") == [
        f"{new.as_uri()}/mlruns/a",
        f"{new}/mlruns/b",
        *runs[2:],
    ]
    assert read(new, "SELECT artifact_location FROM experiments") == [
        f"{new}/mlruns/0",
        f"{new.as_uri()}/mlruns",
        "file:///big/mlruns",
    ]
    assert read(new, "SELECT value FROM experiment_tags") == [str(new)]
    assert relocate(new) == []


@pytest.mark.parametrize("lost", [True, False])
def test_a_project_without_tags_is_known_by_artifacts_that_lie_here_and_not_there(tmp_path, lost):
    old, new = tmp_path / "old", make(tmp_path / "new", {1: f"{tmp_path}/old/mlruns"}, {})
    (new / "mlruns").mkdir()
    if not lost:
        (old / "mlruns").mkdir(parents=True)

    assert relocate(new) == ([str(old)] if lost else [])
    assert read(new, "SELECT artifact_location FROM experiments") == [f"{new if lost else old}/mlruns"]


def test_nothing_to_do(tmp_path):
    assert relocate(tmp_path) == []
    assert relocate(make(tmp_path / "here", {1: f"{tmp_path}/here/mlruns"}, {1: f"{tmp_path}/here"})) == []
    sqlite3.connect(tmp_path / "mlflow.db").close()
    assert relocate(tmp_path) == []


def test_a_file_that_is_no_database_is_said(tmp_path, caplog):
    (tmp_path / "mlflow.db").write_text("nonsense" * 1000)

    assert relocate(tmp_path) == []
    assert "mlflow.db could not be read or written (file is not a database)" in caplog.text
