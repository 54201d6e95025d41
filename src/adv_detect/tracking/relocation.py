"""Moved projects: MLflow stores absolute locations of artifacts, which are put right in the project's database.

``python -m adv_detect.tracking.relocation`` does it in the current folder; every Kedro session does it by itself.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from filelock import FileLock

from adv_detect.tracking.addresses import ARTIFACTS, DATABASE

PROJECT_TAG = "adv_detect.project"
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
LOGGER = logging.getLogger(__name__)


def relocate(project: Path) -> list[str]:
    """Point the project's database at the artifacts where they lie now.

    Each experiment is tagged with the folder of the project that made it. Locations below another folder than the
    present one are rewritten; all others, on other disks or in stores, stay.

    Args:
        project: Folder of the project, absolute.

    Returns:
        Folders that the project was moved or copied from; empty where it stayed.
    """
    file = project / DATABASE
    if not file.is_file():
        return []
    try:
        if not _former_folders(file, project):
            return []
        with FileLock(f"{file}.lock"):
            former = _former_folders(file, project)
            _rewrite(file, former, project)
    except (sqlite3.DatabaseError, OSError) as exc:
        LOGGER.warning("mlflow: %s could not be read or written (%s); models may be looked for elsewhere", file, exc)
        return []
    if former:
        LOGGER.info("mlflow: the project was moved here from %s; artifacts are found again", ", ".join(former))
    return former


def _former_folders(file: Path, project: Path) -> list[str]:
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
        if not {"experiments", "experiment_tags"} <= _tables(database):
            return []  # another process is making it
        tagged = database.execute("SELECT DISTINCT value FROM experiment_tags WHERE key = ?", (PROJECT_TAG,))
        found = {str(value) for (value,) in tagged}
        found |= set(_lost_folders(database, project))
    return sorted(found - {str(project)}, key=len, reverse=True)


def _lost_folders(database: sqlite3.Connection, project: Path) -> Iterator[str]:
    """Folders of experiments without a tag whose artifacts are gone there, and here instead."""
    if not (project / ARTIFACTS).is_dir():
        return
    untagged = (
        "SELECT DISTINCT artifact_location FROM experiments WHERE experiment_id NOT IN "
        "(SELECT experiment_id FROM experiment_tags WHERE key = ?)"
    )
    for (location,) in database.execute(untagged, (PROJECT_TAG,)):
        path = _path(str(location))
        if path is not None and path.name == ARTIFACTS and not path.exists():
            yield str(path.parent)


def _rewrite(file: Path, former: list[str], project: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        columns = {
            (table, column)
            for table in _tables(database)
            for _, column, *_ in database.execute(f"PRAGMA table_info('{table}')")
        }
        for old in former:
            for before, after in ((old, str(project)), (Path(old).as_uri(), project.as_uri())):
                for table, column in columns & set(LOCATIONS):
                    database.execute(
                        f"UPDATE {table} SET {column} = :after || substr({column}, length(:before) + 1) "
                        f"WHERE substr({column}, 1, length(:before) + 1) = :before || '/'",
                        {"before": before, "after": after},
                    )
        database.execute("UPDATE experiment_tags SET value = ? WHERE key = ?", (str(project), PROJECT_TAG))


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _path(location: str) -> Path | None:
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") and parts.path.startswith("/") else None


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    relocate(Path.cwd().resolve())
