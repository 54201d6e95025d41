"""Pictures of a user: a folder, a zip archive, a table of paths, or one file, on any fsspec filesystem."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from adv_detect.datasets.file_sources import HIDDEN, FileSource, FolderSource, ZipSource, file_stamp
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.pictures.opening import DECODE_ERRORS
from adv_detect.serving.pictures import Picture, refused

TABLES = (".csv", ".parquet", ".pq")
KINDS = "a folder, a .zip, a .csv or .parquet list of paths, or a picture"
NO_PATH = "the list has no path here"
SHOWN = 8


class PictureFile(NamedTuple):
    """A picture as it is listed.

    Attributes:
        path: Relative to the folder or archive, or as the list writes it.
        stamp: What changes with its content: size and times; empty where nothing is known.
        problem: Why it must not be read; empty where it may be.
    """

    path: str
    stamp: str = ""
    problem: str = ""


class PictureFiles(NamedTuple):
    """Pictures and where they are read from.

    Attributes:
        source: Gives the bytes of each.
        files: The pictures, in the order of the folder (by name) or of the list.
    """

    source: FileSource
    files: list[PictureFile]


class ListedFiles:
    """Files that a table lists, relative to its folder, absolute, or as fsspec addresses; picklable.

    Args:
        address: The table, or the folder that relative paths begin in.
    """

    def __init__(self, address: str) -> None:
        self.address = self.place = address
        self._folder = address.replace("\\", "/").rpartition("/")[0] if "://" in address else str(Path(address).parent)

    def entries(self, folder: str) -> dict[str, Any]:
        """Return nothing: what counts stands in the table."""
        return {}

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        fs, place = url_to_fs(self.full(path))
        content: bytes = fs.cat_file(place)
        return content

    def stamp(self, path: str) -> str:
        """Say what is known of a file without reading it; empty where that is nothing, or it is absent."""
        fs, place = url_to_fs(self.full(path))
        try:
            return file_stamp(fs.info(place)) or ""
        except (OSError, ValueError, NotImplementedError):
            return ""

    def full(self, path: str) -> str:
        """Complete a path that is relative to the table."""
        return path if "://" in path or Path(path).is_absolute() else f"{self._folder or '.'}/{path}"


def list_pictures(address: str, *, column: str = "path") -> PictureFiles:
    """Find pictures; none is read yet.

    Args:
        address: Folder, archive, table of paths or one picture, as a path or an fsspec address.
        column: Column of a table that holds the paths.

    Returns:
        The pictures; hidden files (``.name``) are left out, all others count, whatever their ending.

    Raises:
        DataError: There is nothing, or it is empty or damaged.
        ConfigurationError: The table has no such column.
    """
    check_place(address)
    source = open_pictures(address)
    files = _files_of(source, address, column)
    if not files:
        raise DataError(f"{address}: expected at least one picture, got none (hidden files do not count)")
    return PictureFiles(source, files)


def readable_pictures(source: FileSource, files: Iterable[PictureFile]) -> Iterator[Picture]:
    """Give pictures a way to read them.

    Args:
        source: Where they are read from.
        files: The pictures.

    Yields:
        Each, none read yet; one with a problem is refused for that reason when it is read.
    """
    for one in files:
        yield refused(one.path, one.problem) if one.problem else Picture(one.path, partial(_read, source, one.path))


def _read(source: FileSource, path: str) -> bytes:
    try:
        return source.read(path)
    except (DataError, OSError):
        raise
    except DECODE_ERRORS as exc:  # of a damaged archive
        raise DataError(f"cannot be read ({exc})") from exc


def check_place(address: str) -> None:
    """Refuse an address at which nothing lies.

    Args:
        address: As :func:`list_pictures` takes it.

    Raises:
        DataError: There is nothing, or no filesystem of that name.
    """
    try:
        fs, path = url_to_fs(address)
        there = fs.exists(path)
    except (ValueError, ImportError) as exc:
        raise DataError(f"{address}: no filesystem for this address ({exc}); expected {KINDS}") from exc
    if not there:
        raise DataError(f"there is nothing at {address}; expected {KINDS}")


def open_pictures(address: str) -> FileSource:
    """Open what pictures are read from, without listing them.

    Args:
        address: As :func:`list_pictures` takes it.

    Returns:
        The source of their bytes.
    """
    fs, path = url_to_fs(address)
    place = path if isinstance(fs, LocalFileSystem) else address
    if fs.isdir(path):
        return FolderSource(place)
    return ZipSource(path) if address.lower().endswith(".zip") else ListedFiles(place)


def _files_of(source: FileSource, address: str, column: str) -> list[PictureFile]:
    fs, path = url_to_fs(address)
    if isinstance(source, FolderSource) and isinstance(fs, LocalFileSystem):
        return list(_local_files(path))
    if not isinstance(source, ListedFiles):
        return [PictureFile(path, one.stamp or "", one.problem) for path, one in source.entries("").items()]
    if address.lower().endswith(TABLES):
        return [_of_table(source, one) for one in _paths_of(address, column)]
    name = path.rpartition("/")[2]
    return [PictureFile(name, source.stamp(name))]


def _local_files(top: str) -> Iterator[PictureFile]:
    """Walk a local folder by name; nothing but the path and a digest of its facts is kept of a file."""
    for folder, inner, names in os.walk(top):
        inner[:] = sorted(name for name in inner if not name.startswith(HIDDEN))
        place = "" if folder == top else f"{Path(folder).relative_to(top).as_posix()}/"
        for name in sorted(names):
            if not name.startswith(HIDDEN):
                yield _local_file(Path(folder) / name, f"{place}{name}")


def _local_file(file: Path, path: str) -> PictureFile:
    try:
        facts = file.stat()
    except OSError as exc:  # a link to nowhere
        return PictureFile(path, problem=f"cannot be read ({exc.strerror})")
    if not file.is_file():
        return PictureFile(path, problem="neither a file nor a folder")
    known = {"size": facts.st_size, "mtime": facts.st_mtime, "created": facts.st_ctime, "ino": facts.st_ino}
    return PictureFile(path, file_stamp(known) or "")


def _paths_of(address: str, column: str) -> Sequence[Any]:
    is_csv = address.lower().endswith(".csv")
    try:
        table = pd.read_csv(address, dtype=str, keep_default_na=False) if is_csv else pd.read_parquet(address)
    except (OSError, ValueError) as exc:  # of pandas and pyarrow, both for files of another form
        raise DataError(f"{address} cannot be read as a table of paths ({exc})") from exc
    if column not in table:
        raise ConfigurationError(
            f"column: expected one of {list(table.columns)[:SHOWN]}, the columns of {address}, got {column!r}; say "
            "scoring.column or calibration.column"
        )
    paths: Sequence[Any] = table[column].tolist()
    return paths


def _of_table(source: ListedFiles, path: Any) -> PictureFile:
    text = path.strip() if isinstance(path, str) else ""
    return PictureFile(text, source.stamp(text)) if text else PictureFile("", problem=NO_PATH)
