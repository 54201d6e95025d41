"""Tables, texts and pictures as Kedro datasets, written whole or not at all; what is read back has a digest."""

from __future__ import annotations

import base64
import hashlib
from pathlib import PurePosixPath
from typing import Any, ClassVar

from kedro.io import DatasetError
from kedro.io.core import get_filepath_str
from kedro_datasets._typing import ImagePreview
from kedro_datasets.json import JSONDataset
from kedro_datasets.pandas import CSVDataset, ParquetDataset
from kedro_datasets.text import TextDataset

from adv_detect.datasets.location import how_to_make
from adv_detect.errors import DamagedFileError
from adv_detect.sharding import files


class _WholeFile:
    """Lets a dataset of one file write to a temporary name beside it, then renames."""

    _temporary: PurePosixPath | None = None

    def save(self, data: Any) -> None:
        """Write the file, whole or not at all.

        Args:
            data: What the dataset of Kedro takes.
        """
        path = self._place()
        files.remove_leftovers(self._fs, path)  # type: ignore[attr-defined]

        def write(temporary: str) -> None:
            self._temporary = PurePosixPath(temporary)
            super(_WholeFile, self).save(data)  # type: ignore[misc]
            self._written(temporary, path)

        try:
            files.write_whole(self._fs, path, write)  # type: ignore[attr-defined]
        finally:
            self._temporary = None
        self._invalidate_cache()  # type: ignore[attr-defined]

    def _written(self, temporary: str, path: str) -> None:
        """Do what is to be done with a file that is not renamed yet."""

    def _place(self) -> str:
        return str(get_filepath_str(super()._get_save_path(), self._protocol))  # type: ignore[misc, attr-defined]

    def _get_save_path(self) -> PurePosixPath:
        path: PurePosixPath = self._temporary or super()._get_save_path()  # type: ignore[misc]
        return path


class _CheckedFile(_WholeFile):
    """Keeps the digest of a file in ``.<name>.sha256`` beside it, as ``sha256sum`` does, and compares on reading."""

    def __init__(self, *, made_by: str | None = None, **arguments: Any) -> None:
        """Set the file.

        Args:
            made_by: Pipeline that makes the file, named in the error of a damaged one.
            **arguments: Of the dataset of Kedro.
        """
        super().__init__(**arguments)
        self._made_by = made_by

    def load(self) -> Any:
        """Read the file after its digest was compared.

        Returns:
            What the dataset of Kedro gives.

        Raises:
            DatasetError: The file is not what was written.
        """
        path = get_filepath_str(self._get_load_path(), self._protocol)  # type: ignore[attr-defined]
        if self._fs.exists(path):  # type: ignore[attr-defined]
            try:
                compare_digest(self._fs, path)  # type: ignore[attr-defined]
            except DamagedFileError as exc:
                raise DatasetError(str(exc.remade_by(how_to_make(self._made_by)))) from exc
        return super().load()  # type: ignore[misc]

    def _written(self, temporary: str, path: str) -> None:
        """Write the digest before the file gets its name: a kill in between is found, never passed over."""
        line = f"{_digest(self._fs, temporary)}  {PurePosixPath(path).name}\n"  # type: ignore[attr-defined]
        files.write_bytes(self._fs, digest_path(path), line.encode())  # type: ignore[attr-defined]


class CheckedParquetDataset(_CheckedFile, ParquetDataset):  # type: ignore[misc]
    """A table as parquet, checked when it is read.

    Example in a catalog::

        gate_scores:
          type: adv_detect.datasets.whole_files.CheckedParquetDataset
          filepath: data/07_model_output/gate_scores.parquet
          made_by: face_recognition

    Example in Python::

        dataset = CheckedParquetDataset(filepath="gate_scores.parquet", made_by="face_recognition")
        dataset.save(scores)
    """


class CheckedJSONDataset(_CheckedFile, JSONDataset):  # type: ignore[misc]
    """A JSON file, checked when it is read.

    Example in a catalog::

        target_metrics:
          type: adv_detect.datasets.whole_files.CheckedJSONDataset
          filepath: data/08_reporting/target_metrics.json
          made_by: target_training

    Example in Python::

        dataset = CheckedJSONDataset(filepath="target_metrics.json", made_by="target_training")
        dataset.save({"accuracy": 0.98})
    """


class WholeCSVDataset(_WholeFile, CSVDataset):  # type: ignore[misc]
    """A table as CSV for people to read; no pipeline reads it back.

    Example in a catalog::

        detection_metrics_csv:
          type: adv_detect.datasets.whole_files.WholeCSVDataset
          filepath: data/08_reporting/detection_metrics.csv

    Example in Python::

        WholeCSVDataset(filepath="detection_metrics.csv").save(metrics)
    """


class WholeTextDataset(_WholeFile, TextDataset):  # type: ignore[misc]
    """A text for people to read; no pipeline reads it back.

    Example in a catalog::

        report:
          type: adv_detect.datasets.whole_files.WholeTextDataset
          filepath: data/08_reporting/report.html

    Example in Python::

        WholeTextDataset(filepath="report.html").save("<!doctype html>")
    """


class WholePictureDataset(_WholeFile, TextDataset):  # type: ignore[misc]
    """One figure as a picture for people to see, already drawn: the bytes of its file.

    Example in a catalog::

        roc_figure:
          type: adv_detect.datasets.whole_files.WholePictureDataset
          filepath: data/08_reporting/figures/roc.png

    Example in Python::

        WholePictureDataset(filepath="roc.png").save(figure_bytes(figure))
    """

    DEFAULT_FS_ARGS: ClassVar[dict[str, Any]] = {"open_args_load": {"mode": "rb"}, "open_args_save": {"mode": "wb"}}

    def preview(self) -> ImagePreview:
        """Give the picture to kedro-viz.

        Returns:
            The file as base64.
        """
        return ImagePreview(base64.b64encode(self.load()).decode("ascii"))


def digest_path(path: str) -> str:
    """Return where the digest of a file lies."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}.{name}.sha256"


def _digest(fs: Any, path: str) -> str:
    with fs.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare_digest(fs: Any, path: str) -> None:
    """Compare a file with the digest beside it.

    Args:
        fs: Filesystem.
        path: The file.

    Raises:
        DamagedFileError: There is no digest, or it is another one.
    """
    beside = digest_path(path)
    if not fs.exists(beside):
        raise DamagedFileError(path, f"there is no digest {beside}, so it is of another origin or of an older version")
    expected = f"{_digest(fs, path)}  {PurePosixPath(path).name}\n".encode()
    if fs.cat_file(beside) != expected:
        raise DamagedFileError(path, f"its digest is not the one in {beside}")
