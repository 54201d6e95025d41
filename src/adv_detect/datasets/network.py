"""The network under attack: its tensors and, beside them, what it takes to build it again."""

from __future__ import annotations

from os import PathLike
from typing import Any

from kedro.io import AbstractDataset, DatasetError
from pydantic import ValidationError

from adv_detect.datasets.location import how_to_make, open_location
from adv_detect.deferred import Deferred, Resumable
from adv_detect.errors import DamagedFileError
from adv_detect.networks.target import NetworkSpec, TargetNetwork, target_digest, target_from_spec, target_tensors
from adv_detect.sharding import files
from adv_detect.sharding.checkpoint import FileCheckpoint

TENSORS_SUFFIX = ".safetensors"


class NetworkDataset(AbstractDataset[TargetNetwork | Deferred[TargetNetwork], TargetNetwork]):
    """Stores a network as ``<name>.safetensors`` and ``<name>.json``.

    A network that is still to be made is made only when the fingerprint on disk is another one. What can be resumed is
    given a checkpoint beside it, ``<name>.unfinished.safetensors``, which goes when the network is there.

    Example in a catalog::

        network_weights:
          type: adv_detect.datasets.network.NetworkDataset
          filepath: data/06_models/network.safetensors
          made_by: target_training

    Example in Python::

        dataset = NetworkDataset(filepath="data/06_models/network.safetensors")
        dataset.save(Deferred(fingerprint="...", make=train))
        network = dataset.load()
    """

    def __init__(
        self,
        *,
        filepath: str | PathLike[str],
        made_by: str | None = "target_training",
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Set the files.

        Args:
            filepath: File of the tensors, ending in ``.safetensors``, as a path or an fsspec address.
            made_by: Pipeline that makes the network, named in the error when it is absent.
            credentials: Secret arguments of the filesystem.
            fs_args: Further arguments of the filesystem.
            metadata: Ignored by Kedro; read by plugins.

        Raises:
            ValueError: The file name ends otherwise.
        """
        self.metadata = metadata
        self._made_by = made_by
        self._fs, self._path = open_location(filepath, credentials, fs_args)
        if not self._path.endswith(TENSORS_SUFFIX):
            raise ValueError(f"filepath: expected a name that ends in {TENSORS_SUFFIX}, got {str(filepath)!r}")
        self._spec_path = self._path.removesuffix(TENSORS_SUFFIX) + ".json"

    def load(self) -> TargetNetwork:
        """Build the stored network.

        Returns:
            The network, frozen, in evaluation mode, on the CPU.

        Raises:
            DatasetError: The network is absent, damaged, or its two files do not belong together.
        """
        if not self._exists():
            raise DatasetError(f"there is no network at {self._path}; {how_to_make(self._made_by)}")
        try:
            return self._read()
        except DamagedFileError as exc:
            raise DatasetError(str(exc.remade_by(how_to_make(self._made_by)))) from exc

    def _read(self) -> TargetNetwork:
        description = files.read_json(self._fs, self._spec_path)
        if files.read_header(self._fs, self._path).get("fingerprint") != description.get("fingerprint"):
            raise DatasetError(
                f"{self._path} and {self._spec_path} are of different networks; delete both and "
                f"{how_to_make(self._made_by)}"
            )
        return target_from_spec(self._spec(description), files.read_tensors(self._fs, self._path)).freeze()

    def save(self, data: TargetNetwork | Deferred[TargetNetwork]) -> None:
        """Store a network, making it first where needed.

        Args:
            data: A network, or how to make it.

        Raises:
            DatasetError: It is neither.
        """
        if isinstance(data, TargetNetwork):
            self._write(data, target_digest(data))
        elif not isinstance(data, Deferred):
            raise DatasetError(f"{self._path}: expected a TargetNetwork or Deferred, got {type(data).__name__}")
        elif self._stored_fingerprint() == data.fingerprint:
            self._logger.info("%s is up to date", self._path)
        else:
            self._make(data)

    def _make(self, data: Deferred[TargetNetwork]) -> None:
        if not isinstance(data, Resumable):
            self._write(data.make(), data.fingerprint)
            return
        unfinished = FileCheckpoint(self._fs, self._path.removesuffix(TENSORS_SUFFIX), data.fingerprint)
        self._write(data.resume(unfinished), data.fingerprint)
        unfinished.remove()

    def _write(self, target: TargetNetwork, fingerprint: str) -> None:
        """Write the tensors, then the spec; a kill in between leaves no spec and so no network."""
        files.remove_leftovers(self._fs, self._path)
        files.remove_leftovers(self._fs, self._spec_path)
        if self._fs.exists(self._spec_path):
            self._fs.rm_file(self._spec_path)
        files.write_tensors(self._fs, self._path, target_tensors(target), {"fingerprint": fingerprint})
        description = {"fingerprint": fingerprint, "spec": target.spec.model_dump(mode="json")}
        files.write_json(self._fs, self._spec_path, description)

    def _stored_fingerprint(self) -> str | None:
        if not self._exists():
            return None
        try:
            stored: str | None = files.read_json(self._fs, self._spec_path).get("fingerprint")
            files.read_tensors(self._fs, self._path)
            return stored if files.read_header(self._fs, self._path).get("fingerprint") == stored else None
        except DamagedFileError as exc:
            self._logger.warning("%s", exc.remade_by("it is made again"))
            return None

    def _spec(self, description: dict[str, Any]) -> NetworkSpec:
        try:
            return NetworkSpec.model_validate(description.get("spec"))
        except ValidationError as exc:
            raise DatasetError(f"{self._spec_path} does not describe a network: {exc}") from exc

    def _exists(self) -> bool:
        return bool(self._fs.exists(self._path) and self._fs.exists(self._spec_path))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._path, "description": self._spec_path, "made_by": self._made_by}
