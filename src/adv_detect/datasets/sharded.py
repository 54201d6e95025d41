"""A data set in shards that resumes where it was stopped."""

from __future__ import annotations

from os import PathLike
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from adv_detect.datasets.location import how_to_make, storage_options
from adv_detect.errors import DamagedFileError
from adv_detect.sharding import ShardPlan, ShardStore, execute_plan


class ShardedSafetensorsDataset(AbstractDataset[ShardPlan, ShardStore]):
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

    def __init__(
        self,
        *,
        filepath: str | PathLike[str],
        made_by: str | None = None,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Set the folder.

        Args:
            filepath: Folder, as a path or an fsspec address.
            made_by: Pipeline that makes the data set, named in the error of an incomplete one.
            credentials: Secret arguments of the filesystem.
            fs_args: Further arguments of the filesystem.
            metadata: Ignored by Kedro; read by plugins.
        """
        self.metadata = metadata
        self._made_by = made_by
        self._store = ShardStore(str(filepath), storage_options(credentials, fs_args), how_to_make(made_by))

    def load(self) -> ShardStore:
        """Return the store of a complete data set after the headers of its shards were compared with its marker.

        Returns:
            The shards by key, none of their tensors read yet.

        Raises:
            DatasetError: The data set is absent or incomplete, or the header of a shard is damaged or of another plan.
        """
        if not self._store.complete:
            raise DatasetError(
                f"{self._store.root} is not a complete data set ({self._store.progress}); {how_to_make(self._made_by)}"
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
        return {"filepath": self._store.root, "protocol": _protocol(self._store), "made_by": self._made_by}


def _protocol(store: ShardStore) -> str:
    protocol = store.fs.protocol
    return protocol if isinstance(protocol, str) else str(protocol[0])
