"""A dataset of any kind, or the note that it is not asked for."""

from __future__ import annotations

from typing import Any

from kedro.io import AbstractDataset

from adv_detect.absent import ABSENT, Absent
from adv_detect.datasets.located import LocatedDataset
from adv_detect.sharding import files


class OptionalDataset(LocatedDataset[Any, Any]):
    """Stores what another dataset stores, or :data:`~adv_detect.absent.ABSENT`.

    That it is absent is the file ``.<name>.absent`` beside it. What an earlier run left there stays and is found again
    when it is asked for.

    Example in a catalog::

        "substitute.{name}":
          type: adv_detect.datasets.optional.OptionalDataset
          dataset: adv_detect.datasets.sharded.ShardedSafetensorsDataset
          filepath: data/06_models/substitute/{name}
          made_by: adaptive_attack

    Example in Python::

        kind = "adv_detect.datasets.sharded.ShardedSafetensorsDataset"
        dataset = OptionalDataset(dataset=kind, filepath="data/06_models/substitute/detectors")
        dataset.save(ABSENT)
    """

    def __init__(self, *, dataset: str, missing_is_absent: bool = False, **place: Any) -> None:
        """Set what is stored and where.

        Args:
            dataset: Type of the dataset that stores what is there, as in a catalog.
            missing_is_absent: Whether nothing on disk counts as absent, for what another pipeline may have left.
            place: As in :class:`~adv_detect.datasets.located.LocatedDataset`.
        """
        super().__init__(**place)
        folder, slash, name = self._path.rpartition("/")
        self._note = f"{folder}{slash}.{name}.absent"
        self._missing_is_absent = missing_is_absent
        given = {key: one for key, one in self._place.items() if one}
        self._dataset: AbstractDataset[Any, Any] = AbstractDataset.from_config(
            name, {"type": dataset, "made_by": self._made_by, **given}
        )

    def load(self) -> Any:
        """Read what is there.

        Returns:
            What the other dataset gives, or ABSENT.

        Raises:
            DatasetError: It was asked for, but is not there or is damaged.
        """
        missing = self._missing_is_absent and not self._dataset.exists()
        return ABSENT if missing or self._fs.exists(self._note) else self._dataset.load()

    def save(self, data: Any) -> None:
        """Store something, or note that it is absent.

        Args:
            data: What the other dataset takes, or ABSENT.

        Raises:
            DatasetError: The other dataset does not take it.
        """
        if isinstance(data, Absent):
            files.write_bytes(self._fs, self._note, b"")
            return
        if self._fs.exists(self._note):
            self._fs.rm_file(self._note)
        self._dataset.save(data)

    def _exists(self) -> bool:
        return self._missing_is_absent or bool(self._fs.exists(self._note)) or self._dataset.exists()

    def _describe(self) -> dict[str, Any]:
        return {"dataset": self._dataset}
