"""The models that can score: the champion of an environment, and others by their address."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

from kedro.io import AbstractDataset, DatasetError

from adv_detect.serving.opening import OpenedModel, open_model


@dataclass(frozen=True)
class ServedModels:
    """Opens models.

    Attributes:
        champion: Folder of the champion of this environment.
    """

    champion: Path

    def open(self, address: str) -> OpenedModel:
        """Open a model.

        Args:
            address: ``champion``, ``models:/<name>@<alias>``, or a folder.

        Returns:
            The model.

        Raises:
            DataError: There is none.
        """
        return open_model(address, champion=self.champion)


class ServedModelsDataset(AbstractDataset[Never, ServedModels]):
    """Gives what opens models; cannot be saved.

    Example in a catalog::

        served_models:
          type: adv_detect.datasets.served_models.ServedModelsDataset
          champion: data/06_models/champion

    Example in Python::

        bundle, version = ServedModelsDataset(champion="data/06_models/champion").load().open("champion")
    """

    def __init__(self, *, champion: str, metadata: dict[str, Any] | None = None) -> None:
        """Set where the champion lies.

        Args:
            champion: Local folder of the stored bundle.
            metadata: Anything; not used here.
        """
        self._models = ServedModels(Path(champion))
        self.metadata = metadata

    def load(self) -> ServedModels:
        """Give what opens models; nothing is read yet."""
        return self._models

    def save(self, data: Never) -> None:
        """Refuse: models are made by detector_training."""
        raise DatasetError("served_models: is read-only; models are made with: kedro run --pipeline=detector_training")

    def _exists(self) -> bool:
        return True  # whether a model is there shows when it is opened, since it may be any

    def _describe(self) -> dict[str, Any]:
        return {"champion": str(self._models.champion)}
