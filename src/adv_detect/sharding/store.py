"""The folder in which the shards of one data set lie."""

from __future__ import annotations

import copy
import difflib
import json
import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Self

from fsspec.core import url_to_fs

from adv_detect.errors import DamagedFileError, MissingShardError, ShardError
from adv_detect.keys import TEMPORARY
from adv_detect.names import FLOAT
from adv_detect.sharding import files
from adv_detect.sharding.fingerprints import digest_of
from adv_detect.sharding.plan import ShardContent, ShardPlan
from adv_detect.sharding.selection import Names, select_keys

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"
COMPLETE = "_complete.json"
PLANNED = "_planned.json"
HEADER = "shard"


class ShardStore(Mapping[str, ShardContent]):
    """Shards by key, in sorted order, each read when it is asked for; picklable.

    A shard is the file ``<root>/<key>.safetensors``; its fingerprint and metadata are text in the file's header.
    ``_complete.json`` is there only while every shard of the plan is.

    A view (:meth:`select`, :meth:`only`) shows some of the shards, or of their tensors; what concerns the whole folder,
    such as ``complete``, ``digest`` and ``finish``, is the same for a view as for its store.

    Args:
        root: Folder, as a path or an fsspec address such as ``s3://bucket/folder``.
        storage_options: Arguments of the fsspec filesystem.
        remedy: What makes the data set again, for the error on a damaged file.
    """

    def __init__(
        self, root: str, storage_options: Mapping[str, Any] | None = None, remedy: str = "run what makes it again"
    ) -> None:
        self._remedy = remedy
        self._shown: tuple[str, ...] | None = None
        self._tensors: tuple[str, ...] | None = None
        self.fs, path = url_to_fs(str(root), **dict(storage_options or {}))
        self.root = path.rstrip("/")

    __hash__ = object.__hash__  # a store equals itself alone: to compare contents would read them all
    __eq__ = object.__eq__

    def __repr__(self) -> str:
        """Return the place of the store."""
        return f"ShardStore({self.fs.unstrip_protocol(self.root)!r})"

    def __len__(self) -> int:
        """Return the number of shards that are there."""
        return len(self._keys())

    def __contains__(self, key: object) -> bool:
        """Return whether a shard is there."""
        if self._shown is not None and key not in self._shown:
            return False
        return isinstance(key, str) and bool(self.fs.exists(self.path(key)))

    def __iter__(self) -> Iterator[str]:
        """List the keys of the shards that are there."""
        return iter(self._keys())

    def __getitem__(self, key: str) -> ShardContent:
        """Read one shard.

        Args:
            key: Which one.

        Returns:
            Its tensors, on the CPU, and its metadata.

        Raises:
            MissingShardError: There is no such shard.
            DataError: Its file is damaged, or lacks a tensor of the view.
        """
        if self._shown is not None and key not in self._shown:
            raise MissingShardError(f"{self.root}: shard {key!r} is not in this selection of {len(self)}")
        metadata = self.metadata(key)
        try:
            return ShardContent(files.read_tensors(self.fs, self.path(key), self._tensors), metadata)
        except DamagedFileError as exc:
            raise exc.remade_by(self._remedy) from exc

    def path(self, key: str) -> str:
        """Return the file of a shard."""
        return f"{self.root}/{key}{SUFFIX}"

    def select(
        self,
        *,
        attack: Names = None,
        criterion: Names = None,
        split: Names = None,
        variant: Names = FLOAT,
        natural: bool | None = None,
    ) -> Self:
        """Show shards of images by the parts of their keys; the store is listed once, now.

        Args:
            attack: Configured names, or ``natural``.
            criterion: ``targeted``, ``untargeted``, ``none``.
            split: ``train``, ``validation``, ``test``.
            variant: ``float``, ``8bit``, ``noise``, ``benign`` (all benign changes) or ``benign/<change>``.
            natural: Whether the images are natural; None for both.

        Returns:
            A view on the same store. Its shards follow the order in which attacks, then criteria, are given, then that
            of their keys.

        Raises:
            ShardError: The shards of this store are not named after images.
        """
        wanted = {"attack": attack, "criterion": criterion, "split": split, "variant": variant}
        try:
            return self._view(_shown=select_keys(self._keys(), **wanted, natural=natural))
        except ValueError as exc:
            raise ShardError(f"{self.root}: {exc}; only from a store of images can be selected") from exc

    def only(self, *tensors: str) -> Self:
        """Show some tensors of each shard; the bytes of others are not fetched.

        Args:
            *tensors: Their names.

        Returns:
            A view on the same store.
        """
        return self._view(_tensors=tensors)

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
        """Read all bytes of a shard; a DamagedFileError says that they differ from their digests."""
        self._view(_shown=None, _tensors=None)[key]

    def check_fingerprints(self) -> None:
        """Compare the header of each shard with the marker of completeness: shards of another plan do not belong here.

        Raises:
            DamagedFileError: A shard is damaged, or was made from other ingredients than the marker says.
        """
        wanted = (self._state(COMPLETE) or {}).get("fingerprints", {})
        for key, fingerprint in wanted.items():
            if self.fingerprint(key) != fingerprint:
                raise DamagedFileError(self.path(key), "it was made from other ingredients", self._remedy)

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprints of the sound shards by key; files that are damaged or foreign are left out."""
        return self._sound(self._keys())

    @property
    def complete(self) -> bool:
        """Tell whether the last plan was finished and all its shards still lie there."""
        marker = self._state(COMPLETE)
        return marker is not None and sorted(marker["keys"]) == list(self._stored())

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
        """Number of shards that are there, of those planned, in words."""
        planned = self._state(PLANNED) or self._state(COMPLETE)
        if planned is None:
            return f"{len(self._stored())} shards and no record of a run there"
        present, wanted = self._sound(self._stored()), planned["fingerprints"]
        done = sum(present.get(key) == one for key, one in wanted.items())
        strangers = len(set(self._stored()) - set(wanted))
        return f"{done} of {len(wanted)} shards there" + (f", {strangers} of no plan" if strangers else "")

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
        for key in set(self._stored()) - set(plan.keys):
            self._remove(self.path(key))
        fingerprints = plan.fingerprints
        content = {"keys": sorted(fingerprints), "fingerprints": fingerprints, "digest": digest_of(fingerprints)}
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

    def _view(self, **changes: Any) -> Self:
        view = copy.copy(self)
        vars(view).update(changes)
        return view

    def _keys(self) -> tuple[str, ...]:
        return self._stored() if self._shown is None else self._shown

    def _stored(self) -> tuple[str, ...]:
        """List all shards that are there, whatever a view shows."""
        names = (path[len(self.root) + 1 :] for path in self._files())
        return tuple(sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)))

    def _sound(self, keys: Collection[str]) -> dict[str, str]:
        return {key: found for key in keys if (found := self._fingerprint_or_none(key)) is not None}

    def _files(self) -> list[str]:
        self.fs.invalidate_cache(self.root)
        return list(self.fs.find(self.root)) if self.fs.isdir(self.root) else []

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
            there = self._stored()
            near = difflib.get_close_matches(key, there, n=3, cutoff=0.0)
            raise MissingShardError(f"{self.root}: no shard {key!r} among {len(there)}; closest: {near}") from exc
        if header.get("key", key) != key:
            raise DamagedFileError(self.path(key), f"it holds shard {header['key']!r}", self._remedy)
        return header

    def _fingerprint_or_none(self, key: str) -> str | None:
        try:
            return self.fingerprint(key)
        except DamagedFileError:
            return None
