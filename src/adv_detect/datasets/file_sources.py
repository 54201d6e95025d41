"""Files below a folder or inside a zip archive, read the same way."""

from __future__ import annotations

import os
import re
import stat
import time
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fsspec.core import url_to_fs

from adv_detect.errors import DataError
from adv_detect.images import content_digest

HIDDEN = (".", "__MACOSX")
OTHER_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar", ".gz")

MAX_BYTES = 2_000_000_000  # of one file; it is read into memory as a whole
MAX_RATIO, RATIO_FROM = 200, 100_000_000  # a file of so many bytes is not packed to less than this share
ENCRYPTED = 0x1  # flag of a zip member
SETTLED_SECONDS = 2  # clocks of file systems tick no slower: until then a change may leave size and times as they were
CHANGES = ("mtime", "LastModified", "last_modified", "ETag", "etag", "generation", "version_id", "VersionId", "md5Hash")
LOCAL = ("created", "ino")
SHOWN = 5


class FileEntry(NamedTuple):
    """A file as it is listed.

    Attributes:
        size: Bytes, unpacked.
        stamp: What changes with its content: size, times, tags; None where nothing does, or it changed just now.
        problem: Why it must not be read; empty where it may be.
    """

    size: int
    stamp: str | None
    problem: str = ""


class FileSource(Protocol):
    """Source of image files; picklable."""

    address: str
    place: str  # the address with its protocol

    def entries(self, folder: str) -> dict[str, FileEntry]:
        """Return the files below a folder, by their paths relative to the source."""
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
        self.place = self._fs.unstrip_protocol(path).rstrip("/")

    def entries(self, folder: str) -> dict[str, FileEntry]:
        """Return the files below a folder, by their paths relative to the source."""
        top = f"{self.address}/{folder}".rstrip("/")
        if not self._fs.isdir(top):
            raise DataError(
                f"there is no image folder {top}; check the address (in a catalog: filepath and folder)"
                f"{_archive_hint(self.address)}"
            )
        found, now = self._fs.find(top, detail=True), time.time()
        return _visible({path[len(self.address) + 1 :]: _listed(info, now) for path, info in found.items()})

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
        self.place = f"zip://{self.address}"
        self._process = -1
        self._archive: zipfile.ZipFile | None = None
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file behind when sent to another process."""
        return {**self.__dict__, "_process": -1, "_archive": None}

    def entries(self, folder: str) -> dict[str, FileEntry]:
        """Return the files below a folder, by their paths relative to the source.

        Raises:
            DataError: A member lies outside the archive's own folder, or two have the same name.
        """
        members = [member for member in self._open().infolist() if not member.is_dir()]
        self._refuse([one.orig_filename for one in members if _is_outside(one.orig_filename)], "lie outside its folder")
        twice = [name for name, count in Counter(one.filename for one in members).items() if count > 1]
        self._refuse(twice, "occur more than once")
        prefix, stamp = f"{folder}/" if folder else "", _stamp(_local_info(self.address), time.time())
        inside = [member for member in members if member.filename.startswith(prefix)]
        return _visible({one.filename: FileEntry(one.file_size, stamp, _problem(one)) for one in inside})

    def read(self, path: str) -> bytes:
        """Return a whole file.

        Raises:
            DataError: The member must not be read.
        """
        member = self._open().getinfo(path)
        if problem := _problem(member):
            raise DataError(f"{self.address}/{path}: {problem}")
        return self._open().read(member)

    def _refuse(self, names: list[str], what: str) -> None:
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            raise DataError(
                f"{self.address}: expected members with relative names, each once, but {len(names)} of them {what}: "
                f"{', '.join(map(repr, sorted(names)[:SHOWN]))}{more}; pack the images anew"
            )

    def _open(self) -> zipfile.ZipFile:
        """Return the archive, opened once in each process: a forked one must not share the file position."""
        if self._archive is None or self._process != os.getpid():
            try:
                self._archive = zipfile.ZipFile(self.address)
            except (OSError, zipfile.BadZipFile) as exc:
                raise DataError(f"{self.address} is no readable zip archive ({exc}); fetch it again") from exc
            self._process = os.getpid()
        return self._archive


class SingleFiles:
    """Files of the local disk that someone else has listed.

    Args:
        paths: The files.
        address: What to call the place that they belong to.
    """

    def __init__(self, paths: Iterable[str | Path], address: str) -> None:
        self.paths = [str(Path(path).absolute()) for path in paths]
        self.address = address
        self.place = f"files:{Path(address).absolute()}"

    def entries(self, folder: str = "") -> dict[str, FileEntry]:
        """Return the files, by their absolute paths."""
        now = time.time()
        return {path: _listed(_local_info(path), now) for path in self.paths if path.startswith(folder)}

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        return Path(path).read_bytes()


def open_source(filepath: str, options: Mapping[str, Any] | None = None) -> FileSource:
    """Open a folder, or a zip archive when the name ends so.

    Args:
        filepath: Folder or archive.
        options: Arguments of the filesystem of a folder.

    Returns:
        The source of files.
    """
    return ZipSource(filepath) if filepath.lower().endswith(".zip") else FolderSource(filepath, options)


def _visible(entries: dict[str, FileEntry]) -> dict[str, FileEntry]:
    return {
        path: entries[path] for path in sorted(entries) if not any(part.startswith(HIDDEN) for part in path.split("/"))
    }


def _listed(info: Mapping[str, Any], now: float) -> FileEntry:
    size = int(info["size"] or 0)
    return FileEntry(size, _stamp(info, now), _too_large(size))


def file_stamp(info: Mapping[str, Any]) -> str | None:
    """Digest what a filesystem says about a file and its last change.

    Args:
        info: As fsspec gives it.

    Returns:
        A digest that changes with the content; None where nothing in it does, or the file changed just now.
    """
    return _stamp(info, time.time())


def _stamp(info: Mapping[str, Any], now: float) -> str | None:
    """Digest what a filesystem says about a file and its last change."""
    if not any(info.get(key) for key in CHANGES):
        return None
    times = [info[key] for key in ("mtime", "created") if isinstance(info.get(key), float)]
    if any(abs(now - moment) < SETTLED_SECONDS for moment in times):
        return None
    return content_digest(repr([info.get(key) for key in ("size", *CHANGES, *LOCAL)]).encode())


def _local_info(path: str) -> dict[str, Any]:
    facts = Path(path).stat()
    return {"size": facts.st_size, "mtime": facts.st_mtime, "created": facts.st_ctime, "ino": facts.st_ino}


def _is_outside(name: str) -> bool:
    """Tell whether the name of a member leads out of the folder that an archive is unpacked into."""
    strange = "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name) is not None
    return strange or any(part in ("", ".", "..") for part in name.split("/"))


def _problem(member: zipfile.ZipInfo) -> str:
    """Say why a member must not be read."""
    if stat.S_ISLNK(member.external_attr >> 16):
        return "a symbolic link, expected a file"
    if member.flag_bits & ENCRYPTED:
        return "encrypted; pack it without a password"
    if member.file_size >= RATIO_FROM and member.file_size > MAX_RATIO * max(member.compress_size, 1):
        return (
            f"declares {member.file_size:,} bytes packed into {member.compress_size:,}, more than {MAX_RATIO} times as "
            "many, as a decompression bomb does"
        )
    return _too_large(member.file_size)


def _too_large(size: int) -> str:
    return f"declares {size:,} bytes, expected fewer than {MAX_BYTES:,}" if size >= MAX_BYTES else ""


def _archive_hint(address: str) -> str:
    packed = address.lower().endswith(OTHER_ARCHIVES) and Path(address).is_file()
    return "; of archives only .zip is read, so unpack this one" if packed else ""
