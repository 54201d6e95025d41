"""The best detector: stored locally and registered in MLflow."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview

from adv_detect.errors import DamagedFileError, DataError, unknown_choice
from adv_detect.serving.bundle import PARTS, PROMOTE, ScoringBundle
from adv_detect.serving.opening import VERSION
from adv_detect.serving.servable import Servable
from adv_detect.serving.verification import VerificationBundle

FOLDER_MODE = 0o755
BUNDLES: dict[str, type[ScoringBundle] | type[VerificationBundle]] = {
    "scoring": ScoringBundle,
    "verification": VerificationBundle,
}


class ChampionModelDataset(AbstractDataset[Servable, Servable]):
    """Saves a bundle into a folder and, within an MLflow run, registers it as a model with an alias.

    Example in a catalog::

        champion_model:
          type: adv_detect.datasets.champion.ChampionModelDataset
          filepath: data/06_models/champion
          alias: champion

    Example in Python::

        ChampionModelDataset(filepath="data/06_models/champion").load().model()
    """

    def __init__(
        self,
        *,
        filepath: str,
        alias: str = "champion",
        made_by: str = "detector_training",
        bundle: Literal["scoring", "verification"] = "scoring",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Set folder and alias.

        Args:
            filepath: Local folder of the stored bundle.
            alias: Alias that the newly registered version gets, unless the bundle's facts say ``promote: false``.
            made_by: Pipeline that makes it, for errors.
            bundle: What is stored: ``scoring`` of pictures, or ``verification`` of pairs of them.
            metadata: Anything; not used here.

        Raises:
            ConfigurationError: Another kind of bundle.
        """
        self._folder = Path(PurePosixPath(filepath))
        self._alias = alias
        self._made_by = made_by
        if bundle not in BUNDLES:
            raise unknown_choice("bundle", bundle, BUNDLES)
        self._bundle = BUNDLES[bundle]
        self.metadata = metadata

    def load(self) -> Servable:
        """Read the bundle from its folder."""
        try:
            return self._bundle.load(self._folder)
        except DamagedFileError as exc:
            again = f"make and register it again with: kedro run --pipeline={self._made_by}"
            raise DatasetError(str(exc.remade_by(again))) from exc
        except DataError as exc:
            raise DatasetError(f"{exc}; run `kedro run --pipeline={self._made_by}` first") from exc

    def save(self, data: Servable) -> None:
        """Store the bundle, then register it when tracking is on."""
        self._store(data)
        import mlflow

        if mlflow.active_run() is not None:
            from adv_detect.serving.registration import register_bundle

            alias = self._alias if data.metadata.get(PROMOTE, True) else None
            version = register_bundle(data, self._folder, alias=alias)
            (self._folder / VERSION).write_text(f"{data.metadata['name']}/{version}\n", encoding="utf-8")

    def preview(self) -> JSONPreview:
        """Show in kedro-viz what the champion is."""
        from adv_detect.serving.registration import form_of

        bundle = self.load()
        return JSONPreview(json.dumps(form_of(bundle).tags(bundle)))

    def _store(self, data: Servable) -> None:
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
