"""Class representatives of all layers in one safetensors file."""

from __future__ import annotations

import json
from os import PathLike
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from adv_detect.algorithms.representatives import (
    Representatives,
    representatives_from_tensors,
    representatives_tensors,
)
from adv_detect.datasets.location import how_to_make, open_location
from adv_detect.deferred import Deferred
from adv_detect.errors import DamagedFileError
from adv_detect.sharding import files


class RepresentativesDataset(AbstractDataset[Representatives | Deferred[Representatives], Representatives]):
    """Stores medoids, centroids and whitening per layer; names and source ids are JSON in the file's header.

    Representatives that are still to be made are made only when the fingerprint in the file is another one: sums differ
    in their last bits from machine to machine and with the number of threads, and new bits would make all that is
    measured against them out of date.

    Example in a catalog::

        representatives:
          type: adv_detect.datasets.representatives.RepresentativesDataset
          filepath: data/04_feature/representatives.safetensors
          made_by: representatives

    Example in Python::

        dataset = RepresentativesDataset(filepath="data/04_feature/representatives.safetensors")
        dataset.save(representatives)
    """

    def __init__(
        self,
        *,
        filepath: str | PathLike[str],
        made_by: str | None = "representatives",
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Set the file.

        Args:
            filepath: The file, as a path or an fsspec address.
            made_by: Pipeline that makes it, named in the error when it is absent.
            credentials: Secret arguments of the filesystem.
            fs_args: Further arguments of the filesystem.
            metadata: Ignored by Kedro; read by plugins.
        """
        self.metadata = metadata
        self._made_by = made_by
        self._fs, self._path = open_location(filepath, credentials, fs_args)

    def load(self) -> Representatives:
        """Read the representatives.

        Returns:
            The representatives, on the CPU.

        Raises:
            DatasetError: The file is absent or damaged.
        """
        if not self._exists():
            raise DatasetError(f"there are no representatives at {self._path}; {how_to_make(self._made_by)}")
        try:
            header = json.loads(files.read_header(self._fs, self._path).get("metadata", "{}"))
            return representatives_from_tensors(files.read_tensors(self._fs, self._path), header)
        except DamagedFileError as exc:
            raise DatasetError(str(exc.remade_by(how_to_make(self._made_by)))) from exc

    def save(self, data: Representatives | Deferred[Representatives]) -> None:
        """Write the representatives, whole or not at all, making them first where needed.

        Args:
            data: The representatives, or how to make them.

        Raises:
            DatasetError: It is neither.
        """
        if isinstance(data, Representatives):
            self._write(data, {})
        elif not isinstance(data, Deferred):
            raise DatasetError(f"{self._path}: expected Representatives or Deferred, got {type(data).__name__}")
        elif self._stored_fingerprint() == data.fingerprint:
            self._logger.info("%s is up to date", self._path)
        else:
            self._write(data.make(), {"fingerprint": data.fingerprint})

    def _write(self, data: Representatives, marks: dict[str, str]) -> None:
        files.remove_leftovers(self._fs, self._path)
        tensors, header = representatives_tensors(data)
        files.write_tensors(self._fs, self._path, tensors, marks | {"metadata": json.dumps(header)})

    def _stored_fingerprint(self) -> str | None:
        if not self._exists():
            return None
        try:
            files.read_tensors(self._fs, self._path)
            return files.read_header(self._fs, self._path).get("fingerprint")
        except DamagedFileError as exc:
            self._logger.warning("%s", exc.remade_by("it is made again"))
            return None

    def _exists(self) -> bool:
        return bool(self._fs.exists(self._path))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._path, "made_by": self._made_by}
