"""The best detector: stored locally and registered in MLflow."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview

from adv_detect.errors import DamagedFileError, DataError
from adv_detect.serving.bundle import PARTS, ScoringBundle
from adv_detect.serving.description import version_tags
from adv_detect.serving.opening import VERSION

FOLDER_MODE = 0o755


class ChampionModelDataset(AbstractDataset[ScoringBundle, ScoringBundle]):
    """Saves a scoring bundle into a folder and, within an MLflow run, registers it as a model with an alias.

    Example in a catalog::

        champion_model:
          type: adv_detect.datasets.champion.ChampionModelDataset
          filepath: data/06_models/champion
          alias: champion

    Example in Python::

        ChampionModelDataset(filepath="data/06_models/champion").load().model()
    """

    def __init__(self, *, filepath: str, alias: str = "champion", metadata: dict[str, Any] | None = None) -> None:
        """Set folder and alias.

        Args:
            filepath: Local folder of the stored bundle.
            alias: Alias that the newly registered version gets.
            metadata: Anything; not used here.
        """
        self._folder = Path(PurePosixPath(filepath))
        self._alias = alias
        self.metadata = metadata

    def load(self) -> ScoringBundle:
        """Read the bundle from its folder."""
        try:
            return ScoringBundle.load(self._folder)
        except DamagedFileError as exc:
            raise DatasetError(str(exc)) from exc
        except DataError as exc:
            raise DatasetError(f"{exc}; run `kedro run --pipeline=detector_training` first") from exc

    def save(self, data: ScoringBundle) -> None:
        """Store the bundle, then register it when tracking is on."""
        self._store(data)
        import mlflow

        if mlflow.active_run() is not None:
            from adv_detect.serving.registration import register_bundle

            version = register_bundle(data, self._folder, alias=self._alias)
            (self._folder / VERSION).write_text(f"{data.metadata['name']}/{version}\n", encoding="utf-8")

    def preview(self) -> JSONPreview:
        """Show in kedro-viz what the champion is."""
        return JSONPreview(json.dumps(version_tags(self.load())))

    def _store(self, data: ScoringBundle) -> None:
        """Write beside the folder, then replace it, so that no half-written bundle is ever found there."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{self._folder.name}.tmp-", dir=self._folder.parent) as scratch:
            fresh = Path(scratch) / self._folder.name
            fresh.mkdir(mode=FOLDER_MODE)
            data.save(fresh)
            shutil.rmtree(self._folder, ignore_errors=True)
            fresh.rename(self._folder)

    def _exists(self) -> bool:
        return all((self._folder / f"{name}.safetensors").is_file() for name in PARTS)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder), "alias": self._alias}
