"""A part of the report on disk."""

from __future__ import annotations

from pathlib import PurePosixPath

from kedro.io import DatasetError

from adv_detect.datasets.located import LocatedDataset
from adv_detect.datasets.location import how_to_make
from adv_detect.errors import DamagedFileError, DataError
from adv_detect.reporting import ReportPart
from adv_detect.reporting.stored import part_as_json, part_from_json
from adv_detect.sharding import files


class ReportPartDataset(LocatedDataset[ReportPart, ReportPart | None]):
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
            raise DatasetError(str(exc.remade_by(self._remedy))) from exc
        except DataError as exc:
            raise DatasetError(f"{self._path}: {exc}; {self._remedy}") from exc

    def save(self, data: ReportPart) -> None:
        """Write the part, whole or not at all.

        Args:
            data: The part.
        """
        files.remove_leftovers(self._fs, self._path)
        files.write_json(self._fs, self._path, part_as_json(data))

    @property
    def _remedy(self) -> str:
        return how_to_make(self._made_by or PurePosixPath(self._path).stem)
