"""The folder in which the shards of one data set lie."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from fsspec.core import url_to_fs

from adv_detect.errors import DamagedFileError, ShardError
from adv_detect.keys import TEMPORARY
from adv_detect.sharding import files
from adv_detect.sharding.fingerprints import digest_of
from adv_detect.sharding.plan import ShardContent, ShardPlan

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"
COMPLETE = "_complete.json"
PLANNED = "_planned.json"
HEADER = "shard"


class ShardStore:
    """Shards by key, read one at a time; picklable.

    A shard is the file ``<root>/<key>.safetensors``; its fingerprint and metadata are text in the file's header.
    ``_complete.json`` is there only while every shard of the plan is.

    Args:
        root: Folder, as a path or an fsspec address such as ``s3://bucket/folder``.
        storage_options: Arguments of the fsspec filesystem.
        remedy: What makes the data set again, for the error on a damaged file.
    """

    def __init__(
        self, root: str, storage_options: Mapping[str, Any] | None = None, remedy: str = "run what makes it again"
    ) -> None:
        self._remedy = remedy
        self.fs, path = url_to_fs(str(root), **dict(storage_options or {}))
        self.root = path.rstrip("/")

    def __repr__(self) -> str:
        """Return the place of the store."""
        return f"ShardStore({self.fs.unstrip_protocol(self.root)!r})"

    def __len__(self) -> int:
        """Return the number of shards that are there."""
        return len(self.keys())

    def __contains__(self, key: object) -> bool:
        """Return whether a shard is there."""
        return isinstance(key, str) and bool(self.fs.exists(self.path(key)))

    def __iter__(self) -> Iterator[tuple[str, ShardContent]]:
        """Read all shards in the order of their keys, one in memory at a time."""
        for key in self.keys():
            yield key, self.read(key)

    def path(self, key: str) -> str:
        """Return the file of a shard."""
        return f"{self.root}/{key}{SUFFIX}"

    def keys(self, prefix: str = "") -> tuple[str, ...]:
        """List the shards that are there.

        Args:
            prefix: How the wanted keys start; end it with ``/`` to mean a whole folder.

        Returns:
            Keys in sorted order.
        """
        names = (path[len(self.root) + 1 :] for path in self._files(prefix.rpartition("/")[0]))
        return tuple(
            sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX) and name.startswith(prefix))
        )

    def read(self, key: str, names: Collection[str] | None = None) -> ShardContent:
        """Read one shard.

        Args:
            key: Which one.
            names: Which of its tensors, None for all; others are not fetched.

        Returns:
            Its tensors, on the CPU, and its metadata.

        Raises:
            ShardError: There is no such shard.
            DataError: Its file is damaged.
        """
        metadata = self.metadata(key)
        try:
            return ShardContent(files.read_tensors(self.fs, self.path(key), names), metadata)
        except DamagedFileError as exc:
            raise exc.remade_by(self._remedy) from exc

    def metadata(self, key: str) -> dict[str, Any]:
        """Read the metadata of one shard without its tensors.

        Args:
            key: Which one.

        Returns:
            What its content was given as metadata.
        """
        content: dict[str, Any] = self._header(key).get("metadata", {})
        return content

    def fingerprint(self, key: str) -> str | None:
        """Read the fingerprint of one shard.

        Args:
            key: Which one.

        Returns:
            The fingerprint, or None where a file of another origin has none.
        """
        return self._header(key).get("fingerprint")

    def check(self, key: str) -> None:
        """Read all bytes of a shard and compare them with their digests.

        Args:
            key: Which one.

        Raises:
            DamagedFileError: The file is not what was written.
        """
        self.read(key)

    def check_marks(self) -> None:
        """Compare the header of each shard with the marker of completeness: shards of another plan do not belong here.

        Raises:
            DamagedFileError: A shard is damaged, or was made from other ingredients than the marker says.
        """
        marks = (self._state(COMPLETE) or {}).get("fingerprints", {})
        for key, mark in marks.items():
            if self.fingerprint(key) != mark:
                raise DamagedFileError(self.path(key), "it was made from other ingredients", self._remedy)

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprints of the sound shards by key; files that are damaged or foreign are left out."""
        return {key: found for key in self.keys() if (found := self._fingerprint_or_none(key)) is not None}

    @property
    def complete(self) -> bool:
        """Tell whether the last plan was finished and all its shards still lie there."""
        marker = self._state(COMPLETE)
        return marker is not None and sorted(marker["keys"]) == list(self.keys())

    @property
    def digest(self) -> str:
        """Digest of all keys and fingerprints; two stores of the same content have the same.

        Raises:
            ShardError: The store is not complete.
        """
        marker = self._state(COMPLETE)
        if marker is None:
            raise ShardError(f"{self.root}: a digest needs a complete data set; {self.progress}")
        return str(marker["digest"])

    @property
    def progress(self) -> str:
        """Say in words how many shards of the plan are there."""
        planned = self._state(PLANNED) or self._state(COMPLETE)
        if planned is None:
            return f"{len(self)} shards and no record of a run there"
        present = self.fingerprints()
        done = sum(present.get(key) == mark for key, mark in planned["fingerprints"].items())
        return f"{done} of {len(planned['fingerprints'])} shards there"

    def write(self, key: str, content: ShardContent, fingerprint: str) -> None:
        """Write one shard: whole or not at all.

        Args:
            key: Its name; an existing shard is replaced.
            content: What it holds.
            fingerprint: Digest of what it was made from.
        """
        header = json.dumps({"key": key, "fingerprint": fingerprint, "metadata": content.metadata})
        files.write_tensors(self.fs, self.path(key), content.tensors, {HEADER: header})

    def begin(self, plan: ShardPlan) -> None:
        """Mark the store as incomplete and note what is planned."""
        files.write_json(self.fs, f"{self.root}/{PLANNED}", {"fingerprints": plan.fingerprints})
        self._remove(f"{self.root}/{COMPLETE}")

    def finish(self, plan: ShardPlan) -> None:
        """Delete shards that are not planned, then mark the store as complete."""
        for key in set(self.keys()) - set(plan.keys):
            self._remove(self.path(key))
        marks = plan.fingerprints
        content = {"keys": sorted(marks), "fingerprints": marks, "digest": digest_of(marks)}
        files.write_json(self.fs, f"{self.root}/{COMPLETE}", content)
        self._remove(f"{self.root}/{PLANNED}")

    def holds(self, plan: ShardPlan) -> bool:
        """Return whether the marker says that exactly this plan was finished."""
        marker = self._state(COMPLETE)
        return marker is not None and marker["fingerprints"] == plan.fingerprints

    def remove_leftovers(self) -> None:
        """Delete temporary files of runs that were killed."""
        for path in self._files():
            if TEMPORARY in path[len(self.root) :]:
                self._remove(path)

    def _files(self, folder: str = "") -> list[str]:
        """List all files below a folder of the store; its other folders are not looked into."""
        root = f"{self.root}/{folder}" if folder else self.root
        self.fs.invalidate_cache(root)
        return list(self.fs.find(root)) if self.fs.isdir(root) else []

    def _remove(self, path: str) -> None:
        if self.fs.exists(path):
            self.fs.rm_file(path)

    def _state(self, name: str) -> dict[str, Any] | None:
        """Read a marker; one that is damaged counts as none, so that the plan is gone through again."""
        path = f"{self.root}/{name}"
        try:
            return files.read_json(self.fs, path) if self.fs.exists(path) else None
        except DamagedFileError as exc:
            logger.warning("%s", exc.remade_by("it is left out"))
            return None

    def _header(self, key: str) -> dict[str, Any]:
        try:
            header: dict[str, Any] = json.loads(files.read_header(self.fs, self.path(key)).get(HEADER, "{}"))
        except DamagedFileError as exc:
            raise exc.remade_by(self._remedy) from exc
        except FileNotFoundError as exc:
            near = difflib.get_close_matches(key, self.keys(), n=3, cutoff=0.0)
            raise ShardError(f"{self.root}: no shard {key!r} among {len(self)}; closest: {near}") from exc
        if header.get("key", key) != key:
            raise DamagedFileError(self.path(key), f"it holds shard {header['key']!r}", self._remedy)
        return header

    def _fingerprint_or_none(self, key: str) -> str | None:
        try:
            return self.fingerprint(key)
        except DamagedFileError:
            return None
