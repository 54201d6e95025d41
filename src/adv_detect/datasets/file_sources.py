"""Files below a folder or inside a zip archive, read the same way."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fsspec.core import url_to_fs

from adv_detect.errors import DataError

HIDDEN = (".", "__MACOSX")


class FileSource(Protocol):
    """Where image files come from; picklable."""

    address: str

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the size in bytes of each file below a folder, by its path relative to the source."""
        ...

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        ...


class FolderSource:
    """Files below a folder on any fsspec filesystem.

    Args:
        address: Folder, as a path or an fsspec address.
        options: Arguments of the filesystem.
    """

    def __init__(self, address: str, options: Mapping[str, Any] | None = None) -> None:
        self._fs, path = url_to_fs(address, **dict(options or {}))
        self.address = path.rstrip("/")

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the size in bytes of each file below a folder, by its path relative to the source."""
        top = f"{self.address}/{folder}".rstrip("/")
        if not self._fs.isdir(top):
            raise DataError(f"there is no image folder {top}; check filepath and folder")
        found = self._fs.find(top, detail=True)
        return _visible({path[len(self.address) + 1 :]: info["size"] for path, info in found.items()})

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        content: bytes = self._fs.cat_file(f"{self.address}/{path}")
        return content


class ZipSource:
    """Files inside a zip archive on the local disk.

    Args:
        address: Path of the archive.

    Raises:
        DataError: The archive is absent or damaged.
    """

    def __init__(self, address: str) -> None:
        self.address = str(Path(address).absolute())
        self._process = -1
        self._archive: zipfile.ZipFile | None = None
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file behind when sent to another process."""
        return {"address": self.address, "_process": -1, "_archive": None}

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the size in bytes of each file below a folder, by its path relative to the source."""
        prefix = f"{folder}/" if folder else ""
        entries = [entry for entry in self._open().infolist() if not entry.is_dir()]
        return _visible({entry.filename: entry.file_size for entry in entries if entry.filename.startswith(prefix)})

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        return self._open().read(path)

    def _open(self) -> zipfile.ZipFile:
        """Return the archive, opened once in each process: a forked one must not share the file position."""
        if self._archive is None or self._process != os.getpid():
            try:
                self._archive = zipfile.ZipFile(self.address)
            except (OSError, zipfile.BadZipFile) as exc:
                raise DataError(f"{self.address} is no readable zip archive ({exc}); fetch it again") from exc
            self._process = os.getpid()
        return self._archive


def open_source(filepath: str, options: Mapping[str, Any] | None = None) -> FileSource:
    """Open a folder, or a zip archive when the name ends so.

    Args:
        filepath: Folder or archive.
        options: Arguments of the filesystem of a folder.

    Returns:
        The source of files.
    """
    return ZipSource(filepath) if filepath.endswith(".zip") else FolderSource(filepath, options)


def _visible(sizes: dict[str, int]) -> dict[str, int]:
    return {path: sizes[path] for path in sorted(sizes) if not any(part.startswith(HIDDEN) for part in path.split("/"))}
