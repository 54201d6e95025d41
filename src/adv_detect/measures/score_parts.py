"""Scores of many images in a folder of parquet files, read detector by detector.

A file, of any number of images, holds one row group per detector, all of them on the same images in the same order. So
what describes the images is read once, from the first row group of each file, and of a detector only scores and
verdicts: memory grows with the number of images, not with that of images x detectors. Whoever scores a shard writes
its file; nothing is joined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from adv_detect.algorithms.roc import BoolArray, check_scores
from adv_detect.errors import DataError
from adv_detect.measures.score_columns import (
    GROUP_COLUMNS,
    SCORE_COLUMNS,
    VERDICT_PREFIX,
    GroupKey,
    Index,
    ScoreColumns,
    check_score_columns,
)
from adv_detect.sharding.files import write_whole

OF_IMAGES = tuple(name for name in SCORE_COLUMNS if name not in ("detector", "score"))
TEXTS = ("detector", "source_id", "split", *GROUP_COLUMNS)


def write_part(path: Path, scores: pd.DataFrame) -> None:
    """Write the scores of some images as one file of a folder of parts, whole or not at all.

    Args:
        path: The file, ``<folder>/<name>.parquet``; parts are read in the order of their names.
        scores: One row per image x detector, with the columns of the table of scores.

    Raises:
        DataError: The detectors have not scored the same images in the same order, or there is no row.
    """
    parts = [(str(key), rows) for key, rows in scores.groupby("detector", sort=False, observed=True)]
    if not parts:
        raise DataError(f"{path}: expected scores of at least one image, got an empty table")
    first = parts[0][1]
    for key, rows in parts[1:]:
        if not _of_images(rows).equals(_of_images(first)):
            raise DataError(
                f"{path}: expected {key!r} and {parts[0][0]!r} to have scored the same images in the same order, "
                f"got {len(rows)} and {len(first)} other rows; score a whole shard with every detector"
            )
    tables = [_arrow(rows) for _, rows in parts]

    def write(temporary: str) -> None:
        with pq.ParquetWriter(temporary, tables[0].schema) as writer:
            for table in tables:
                writer.write_table(table, row_group_size=len(table))

    write_whole(LocalFileSystem(), str(path), write)


def _of_images(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[list(OF_IMAGES)].reset_index(drop=True)


def _arrow(rows: pd.DataFrame) -> pa.Table:
    """Convert rows; texts become dictionaries of what stands in them."""
    texts = {name: rows[name].astype("category").cat.remove_unused_categories() for name in TEXTS}
    return pa.Table.from_pandas(rows.assign(**texts), preserve_index=False).replace_schema_metadata(None)


@dataclass(frozen=True)
class _Images:
    """Test images of all parts, sorted by source image.

    Attributes:
        kept: Of each part, which of its images are of the test split.
        order: Where each image stood, ``(N,)``.
    """

    kept: list[BoolArray]
    order: Index
    success: BoolArray
    correct: BoolArray
    source: Index
    n_sources: int
    groups: dict[GroupKey, Index]


class ScoreParts:
    """Scores in a folder of parquet files, as :func:`write_part` writes them.

    Args:
        folder: The folder.

    Raises:
        DataError: There is no file in it, columns are missing, or the files are of different detectors.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.glob("*.parquet"))
        if not self._paths:
            raise DataError(f"scores: expected parquet files in {folder}, got none; run evaluation")
        columns = pq.read_schema(self._paths[0]).names
        check_score_columns(columns)
        self._verdicts = [name for name in columns if name.startswith(VERDICT_PREFIX)]
        self._detectors = _detectors(self._paths[0])
        for path in self._paths[1:]:
            if _detectors(path) != self._detectors:
                raise DataError(
                    f"scores: expected all parts to be of the same detectors, got others in {path.name} than in "
                    f"{self._paths[0].name}; run evaluation again"
                )

    @property
    def detectors(self) -> Sequence[str]:
        """Keys of the detectors, as they come."""
        return self._detectors

    @property
    def n_sources(self) -> int:
        """Number of source images."""
        return self._images.n_sources

    def columns(self, detector: str) -> ScoreColumns:
        """Read what a detector says of the test images.

        Args:
            detector: One of ``detectors``.

        Returns:
            Its columns, sorted by source image.
        """
        images, group = self._images, self._detectors.index(detector)
        names = ["score", *self._verdicts]
        found: dict[str, list[NDArray[np.generic]]] = {name: [] for name in names}
        for path, kept in zip(self._paths, images.kept, strict=True):
            table = pq.ParquetFile(path).read_row_group(group, columns=names)
            for name in names:
                found[name].append(table[name].to_numpy()[kept])
        joined = {name: np.concatenate(found.pop(name))[images.order] for name in names}
        return ScoreColumns(
            score=check_scores(joined.pop("score")),
            success=images.success,
            correct=images.correct,
            source=images.source,
            verdicts={name.removeprefix(VERDICT_PREFIX): flags.astype(bool) for name, flags in joined.items()},
            n_sources=images.n_sources,
            groups={detector: images.groups},
        )

    @cached_property
    def _images(self) -> _Images:
        """Read what describes the images, part by part."""
        names: dict[str, int] = {}
        keys: dict[GroupKey, int] = {}
        parts = [_read_images(path, names, keys) for path in self._paths]
        if not names:
            raise DataError("scores: expected rows of the split 'test', got none")
        source = np.concatenate([part.source for part in parts])
        order = np.argsort(source, kind="stable")
        group = np.concatenate([part.group for part in parts])[order]
        return _Images(
            kept=[part.kept for part in parts],
            order=order,
            success=np.concatenate([part.success for part in parts])[order],
            correct=np.concatenate([part.correct for part in parts])[order],
            source=source[order].astype(np.intp),
            n_sources=len(names),
            groups={key: np.flatnonzero(group == number) for key, number in keys.items()},
        )


@dataclass(frozen=True)
class _Part:
    """Images of one part: which are of the test split, and of these source, group and facts, in few bytes."""

    kept: BoolArray
    source: NDArray[np.int32]
    group: NDArray[np.int16]
    success: BoolArray
    correct: BoolArray


def _read_images(path: Path, names: dict[str, int], keys: dict[GroupKey, int]) -> _Part:
    """Read the images of a part; sources and groups that are new get the next numbers."""
    table = pq.ParquetFile(path, read_dictionary=list(TEXTS)).read_row_group(0, columns=list(OF_IMAGES))
    frame = table.to_pandas()
    kept = (frame["split"] == "test").to_numpy()
    test = frame[kept]
    codes, found = pd.factorize(test["source_id"])
    numbers = np.array([names.setdefault(str(name), len(names)) for name in found], dtype=np.int32)
    group = np.zeros(len(test), dtype=np.int16)
    indices = test.groupby(list(GROUP_COLUMNS), sort=False, observed=True).indices
    for key, positions in cast("Mapping[GroupKey, Index]", indices).items():
        group[positions] = keys.setdefault(key, len(keys))
    return _Part(
        kept=kept,
        source=numbers[codes] if len(codes) else np.zeros(0, dtype=np.int32),
        group=group,
        success=test["success"].to_numpy(dtype=bool),
        correct=test["correct"].to_numpy(dtype=bool),
    )


def _detectors(path: Path) -> list[str]:
    """Name the detector of each row group."""
    metadata = pq.ParquetFile(path).metadata
    place = metadata.schema.names.index("detector")
    found = []
    for number in range(metadata.num_row_groups):
        seen = metadata.row_group(number).column(place).statistics
        if seen is None or seen.min != seen.max:
            raise DataError(f"scores: expected one detector per row group, got several in {path}; run evaluation again")
        found.append(str(seen.min))
    return found
