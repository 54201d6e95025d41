"""Class representatives of all layers in one safetensors file."""

from __future__ import annotations

import json

from adv_detect.algorithms.representatives import (
    Representatives,
    representatives_from_tensors,
    representatives_tensors,
)
from adv_detect.datasets.located import DeferredDataset
from adv_detect.sharding import files


class RepresentativesDataset(DeferredDataset[Representatives]):
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

    MADE_BY = "representatives"
    KIND = Representatives
    NAMED = "are no representatives"

    def _read(self) -> Representatives:
        header = json.loads(files.read_header(self._fs, self._path).get("metadata", "{}"))
        return representatives_from_tensors(files.read_tensors(self._fs, self._path), header)

    def _write(self, data: Representatives, fingerprint: str | None) -> None:
        files.remove_leftovers(self._fs, self._path)
        tensors, header = representatives_tensors(data)
        stored = {} if fingerprint is None else {"fingerprint": fingerprint}
        files.write_tensors(self._fs, self._path, tensors, stored | {"metadata": json.dumps(header)})
