"""Tables that are written part by part, so that no more than a part is in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pandas as pd
from kedro.io.core import get_filepath_str
from kedro_datasets.pandas import CSVDataset, ParquetDataset

from adv_detect.datasets.whole_files import _CheckedFile, _WholeFile


class _StreamedParquet(ParquetDataset):  # type: ignore[misc]
    """Writes a table, or the parts of one, each a row group."""

    def save(self, data: pd.DataFrame | Iterable[pd.DataFrame]) -> None:
        """Write the file.

        Args:
            data: A table, or parts of the same columns and types, at least one.
        """
        if isinstance(data, pd.DataFrame):
            super().save(data)
            return
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        parts = (pa.Table.from_pandas(part, preserve_index=False) for part in data)
        with self._fs.open(get_filepath_str(self._get_save_path(), self._protocol), mode="wb") as file:
            first = next(parts)
            with ParquetWriter(file, first.schema) as writer:
                for table in itertools.chain([first], parts):
                    writer.write_table(table.cast(first.schema))


class _StreamedCSV(CSVDataset):  # type: ignore[misc]
    """Writes a table, or the parts of one below each other."""

    def save(self, data: pd.DataFrame | Iterable[pd.DataFrame]) -> None:
        """Write the file.

        Args:
            data: A table, or parts of the same columns, at least one.
        """
        if isinstance(data, pd.DataFrame):
            super().save(data)
            return
        path = get_filepath_str(self._get_save_path(), self._protocol)
        with self._fs.open(path, mode="w", encoding="utf-8", newline="") as file:
            for number, part in enumerate(data):
                part.to_csv(file, index=False, header=number == 0)


class StreamedParquetDataset(_CheckedFile, _StreamedParquet):
    """A table as parquet, written part by part, checked when it is read.

    Example in a catalog::

        verdicts:
          type: adv_detect.datasets.streamed_tables.StreamedParquetDataset
          filepath: data/07_model_output/verdicts.parquet
          made_by: scoring

    Example in Python::

        StreamedParquetDataset(filepath="verdicts.parquet").save([first_part, second_part])
    """


class StreamedCSVDataset(_WholeFile, _StreamedCSV):
    """A table as CSV for people to read, written part by part.

    Example in a catalog::

        verdicts_csv:
          type: adv_detect.datasets.streamed_tables.StreamedCSVDataset
          filepath: data/07_model_output/verdicts.csv

    Example in Python::

        StreamedCSVDataset(filepath="verdicts.csv").save([first_part, second_part])
    """

    def load(self) -> Any:
        """Read the whole file."""
        return super().load()
