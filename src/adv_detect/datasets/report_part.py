"""A part of the report on disk."""

from __future__ import annotations

from os import PathLike
from pathlib import PurePosixPath
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from adv_detect.datasets.location import how_to_make, open_location
from adv_detect.errors import DamagedFileError, DataError
from adv_detect.reporting import ReportPart
from adv_detect.reporting.stored import part_as_json, part_from_json
from adv_detect.sharding import files


class ReportPartDataset(AbstractDataset[ReportPart, ReportPart | None]):
    """Stores a part of the report as one JSON file with its figures inside; the file is named after its pipeline.

    A pipeline that has not run has no part: loading gives None.

    Example in a catalog::

        evaluation_part:
          type: adv_detect.datasets.report_part.ReportPartDataset
          filepath: data/08_reporting/parts/evaluation.json

    Example in Python::

        dataset = ReportPartDataset(filepath="data/08_reporting/parts/evaluation.json")
        dataset.save(ReportPart(report, made_from))
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
        """Set the file.

        Args:
            filepath: The file, as a path or an fsspec address.
            made_by: Pipeline that makes it; None for the one that the file is named after.
            credentials: Secret arguments of the filesystem.
            fs_args: Further arguments of the filesystem.
            metadata: Ignored by Kedro; read by plugins.
        """
        self.metadata = metadata
        self._fs, self._path = open_location(filepath, credentials, fs_args)
        self._made_by = made_by or PurePosixPath(self._path).stem

    def load(self) -> ReportPart | None:
        """Read the part.

        Returns:
            The part; None where the file is absent.

        Raises:
            DatasetError: The file is damaged, or of another form.
        """
        if not self._exists():
            return None
        try:
            return part_from_json(files.read_json(self._fs, self._path))
        except DamagedFileError as exc:
            raise DatasetError(str(exc.remade_by(how_to_make(self._made_by)))) from exc
        except DataError as exc:
            raise DatasetError(f"{self._path}: {exc}; {how_to_make(self._made_by)}") from exc

    def save(self, data: ReportPart) -> None:
        """Write the part, whole or not at all.

        Args:
            data: The part.
        """
        files.remove_leftovers(self._fs, self._path)
        files.write_json(self._fs, self._path, part_as_json(data))

    def _exists(self) -> bool:
        return bool(self._fs.exists(self._path))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._path, "made_by": self._made_by}
