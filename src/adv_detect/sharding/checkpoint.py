"""The state of unfinished work as one safetensors file, whole or not at all."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from fsspec import AbstractFileSystem
from torch import Tensor

from adv_detect.errors import DamagedFileError
from adv_detect.sharding import files

LOGGER = logging.getLogger(__name__)
SUFFIX = ".unfinished.safetensors"


class FileCheckpoint:
    """Keeps tensors and JSON-able facts of work that can be taken up again."""

    def __init__(self, fs: AbstractFileSystem, stem: str, fingerprint: str) -> None:
        """Set the file.

        Args:
            fs: Filesystem.
            stem: Path without the suffix.
            fingerprint: Digest of everything that decides the result; the state of other work is not given back.
        """
        self._fs, self._stem, self._fingerprint = fs, stem, fingerprint

    @property
    def path(self) -> str:
        """The file."""
        return f"{self._stem}{SUFFIX}"

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and facts of the last :meth:`write`; None where there is none, or it is of other work."""
        if not self._fs.exists(self.path):
            return None
        try:
            header = files.read_header(self._fs, self.path)
            if header.get("fingerprint") != self._fingerprint:
                return None
            return files.read_tensors(self._fs, self.path), json.loads(header["facts"])
        except DamagedFileError as exc:
            LOGGER.warning("%s", exc.remade_by("the work starts anew"))
            return None

    def write(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Replace what is kept, whole or not at all."""
        header = {"fingerprint": self._fingerprint, "facts": json.dumps(facts)}
        files.write_tensors(self._fs, self.path, tensors, header)

    def part(self, name: str) -> FileCheckpoint:
        """Return the checkpoint of one of several pieces of work that have one result."""
        return FileCheckpoint(self._fs, f"{self._stem}.{name}", self._fingerprint)

    def remove(self) -> None:
        """Delete what is kept, of all parts, and what killed runs left of it."""
        folder = self._stem.rpartition("/")[0]
        for found in self._fs.find(folder, maxdepth=1) if self._fs.isdir(folder) else ():
            if found.startswith(f"{self._stem}.") and SUFFIX in found:
                self._fs.rm_file(found)
