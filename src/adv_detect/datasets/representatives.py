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
from adv_detect.sharding import files


class RepresentativesDataset(AbstractDataset[Representatives, Representatives]):
    """Stores medoids, centroids and whitening per layer; names and source ids are JSON in the file's header.

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
            DatasetError: The file is absent.
        """
        if not self._exists():
            raise DatasetError(f"there are no representatives at {self._path}; {how_to_make(self._made_by)}")
        header = json.loads(files.read_header(self._fs, self._path).get("metadata", "{}"))
        return representatives_from_tensors(files.read_tensors(self._fs, self._path), header)

    def save(self, data: Representatives) -> None:
        """Write the representatives, whole or not at all.

        Args:
            data: The representatives.

        Raises:
            DatasetError: It is something else.
        """
        if not isinstance(data, Representatives):
            raise DatasetError(f"{self._path}: expected Representatives, got {type(data).__name__}")
        tensors, header = representatives_tensors(data)
        files.write_tensors(self._fs, self._path, tensors, {"metadata": json.dumps(header)})

    def _exists(self) -> bool:
        return bool(self._fs.exists(self._path))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._path, "made_by": self._made_by}
