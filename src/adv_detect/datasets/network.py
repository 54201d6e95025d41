"""The network under attack: its tensors and, beside them, what it takes to build it again."""

from __future__ import annotations

from typing import Any

from kedro.io import DatasetError
from pydantic import ValidationError

from adv_detect.datasets.located import DeferredDataset
from adv_detect.deferred import Deferred, Resumable
from adv_detect.networks.spec import NetworkSpec
from adv_detect.networks.target import TargetNetwork, target_digest, target_from_spec, target_tensors
from adv_detect.sharding import files
from adv_detect.sharding.checkpoint import FileCheckpoint


class NetworkDataset(DeferredDataset[TargetNetwork]):
    """Stores a network as ``<name>.safetensors`` and ``<name>.json``.

    A network that is still to be made is made only when the fingerprint on disk is another one. What can be resumed is
    given a checkpoint beside it, ``<name>.unfinished.safetensors``, which goes when the network is there and does. A
    network that is kept has to do as well.

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

    MADE_BY = "target_training"
    KIND = TargetNetwork
    NAMED = "is no network"
    ENDING = ".safetensors"

    @property
    def _spec_path(self) -> str:
        return self._path.removesuffix(self.ENDING) + ".json"

    def _read(self) -> TargetNetwork:
        description = files.read_json(self._fs, self._spec_path)
        if files.read_header(self._fs, self._path).get("fingerprint") != description.get("fingerprint"):
            raise DatasetError(
                f"{self._path} and {self._spec_path} are of different networks; delete both and {self._remedy}"
            )
        return target_from_spec(self._spec(description), files.read_tensors(self._fs, self._path)).freeze()

    def _make(self, data: Deferred[TargetNetwork]) -> None:
        if not isinstance(data, Resumable):
            super()._make(data)
            return
        unfinished = FileCheckpoint(self._fs, self._path.removesuffix(self.ENDING), data.fingerprint)
        self._write(data.accept(data.resume(unfinished)), data.fingerprint)
        unfinished.remove()

    def _write(self, data: TargetNetwork, fingerprint: str | None) -> None:
        """Write the tensors, then the spec; a kill in between leaves no spec and so no network."""
        files.remove_leftovers(self._fs, self._path)
        files.remove_leftovers(self._fs, self._spec_path)
        if self._fs.exists(self._spec_path):
            self._fs.rm_file(self._spec_path)
        stored = {"fingerprint": target_digest(data) if fingerprint is None else fingerprint}
        files.write_tensors(self._fs, self._path, target_tensors(data), stored)
        description = stored | {"spec": data.spec.model_dump(mode="json")}
        files.write_json(self._fs, self._spec_path, description)

    def _read_fingerprint(self) -> str | None:
        stored: str | None = files.read_json(self._fs, self._spec_path).get("fingerprint")
        return stored if super()._read_fingerprint() == stored else None

    def _spec(self, description: dict[str, Any]) -> NetworkSpec:
        try:
            return NetworkSpec.model_validate(description.get("spec"))
        except ValidationError as exc:
            raise DatasetError(f"{self._spec_path} does not describe a network: {exc}") from exc

    def _exists(self) -> bool:
        return bool(self._fs.exists(self._path) and self._fs.exists(self._spec_path))

    def _describe(self) -> dict[str, Any]:
        return super()._describe() | {"description": self._spec_path}
