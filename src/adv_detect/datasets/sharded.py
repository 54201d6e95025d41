"""A data set in shards that resumes where it was stopped."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from kedro.io import DatasetError

from adv_detect.datasets.located import LocatedDataset
from adv_detect.datasets.location import storage_options
from adv_detect.errors import DamagedFileError
from adv_detect.sharding import ShardPlan, ShardStore, execute_plan


class ShardedSafetensorsDataset(LocatedDataset[ShardPlan, ShardStore]):
    """Executes a shard plan when saved, gives a shard store when loaded.

    Saving makes only the shards that are missing or were made from other ingredients, deletes shards that are no
    longer planned and marks the folder as complete at the end. Loading refuses an incomplete folder.

    Example in a catalog::

        adversarials:
          type: adv_detect.datasets.sharded.ShardedSafetensorsDataset
          filepath: data/03_primary/adversarials
          made_by: adversarial_generation

    Example in Python::

        dataset = ShardedSafetensorsDataset(filepath="data/03_primary/adversarials")
        dataset.save(plan)
        for key, content in dataset.load().items():
            ...
    """

    @cached_property
    def _store(self) -> ShardStore:
        options = storage_options(self._place["credentials"], self._place["fs_args"])
        return ShardStore(self._place["filepath"], options, self._remedy)

    def load(self) -> ShardStore:
        """Return the store of a complete data set after the headers of its shards were compared with its marker.

        Returns:
            The shards by key, none of their tensors read yet.

        Raises:
            DatasetError: The data set is absent or incomplete, or the header of a shard is damaged or of another plan.
        """
        if not self._store.complete:
            raise DatasetError(
                f"{self._store.root} is not a complete data set ({self._store.progress}); {self._remedy}"
            )
        try:
            self._store.check_fingerprints()
        except DamagedFileError as exc:
            raise DatasetError(str(exc)) from exc
        return self._store

    def save(self, data: ShardPlan) -> None:
        """Make what the plan says and is not there yet.

        Args:
            data: The plan.

        Raises:
            DatasetError: A shard could not be made; the finished ones stay.
        """
        if not isinstance(data, ShardPlan):
            raise DatasetError(f"{self._store.root}: expected a ShardPlan, got {type(data).__name__}")
        execute_plan(data, self._store)

    def _exists(self) -> bool:
        return self._store.complete

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "protocol": _protocol(self._store)}


def _protocol(store: ShardStore) -> str:
    protocol = store.fs.protocol
    return protocol if isinstance(protocol, str) else str(protocol[0])
