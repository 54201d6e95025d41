"""Columns of the scores of test images, sorted by source image, and the rows of each condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adv_detect.algorithms.roc import BoolArray, FloatArray, check_scores
from adv_detect.errors import DataError

Index: TypeAlias = NDArray[np.intp]
GroupKey: TypeAlias = tuple[str, str, str, str]
"""Attack, criterion, form and variant."""

VERDICT_PREFIX = "verdict_fpr_"
SCORE_COLUMNS = (
    "detector", "source_id", "attack", "criterion", "form", "variant", "split", "score", "success", "correct",
)  # fmt: skip

GROUP_COLUMNS = ("attack", "criterion", "form", "variant")


class ScoreSource(Protocol):
    """Scores that are read detector by detector."""

    @property
    def detectors(self) -> Sequence[str]:
        """Keys of the detectors."""

    @property
    def n_sources(self) -> int:
        """Number of source images of the test split."""

    def columns(self, detector: str) -> ScoreColumns:
        """Give the columns of a detector; images of all detectors stand in the same order."""


@dataclass(frozen=True)
class ScoreColumns:
    """The columns of all test rows, sorted by source image; ``groups`` finds the rows of a condition."""

    score: FloatArray
    success: BoolArray
    correct: BoolArray
    source: Index
    verdicts: dict[str, BoolArray]
    n_sources: int
    groups: dict[str, dict[GroupKey, Index]]


class ScoreTable:
    """A table of scores in memory.

    Args:
        scores: One row per image, condition and detector.

    Raises:
        DataError: Columns are missing.
    """

    def __init__(self, scores: pd.DataFrame) -> None:
        _check_columns(scores)
        self._scores = scores
        self._detectors = [str(key) for key in scores["detector"].unique()]

    @property
    def detectors(self) -> Sequence[str]:
        """Keys of the detectors, as they come."""
        return self._detectors

    @property
    def n_sources(self) -> int:
        """Number of source images of the test split."""
        return self._columns.n_sources

    def columns(self, detector: str) -> ScoreColumns:
        """Give the columns of all detectors, this one among them."""
        return self._columns

    @cached_property
    def _columns(self) -> ScoreColumns:
        return score_columns(self._scores)


def _check_columns(scores: pd.DataFrame) -> None:
    missing = [name for name in SCORE_COLUMNS if name not in scores]
    if missing:
        raise DataError(f"scores: expected the columns {list(SCORE_COLUMNS)}, missing are {missing}")


def score_columns(scores: pd.DataFrame) -> ScoreColumns:
    """Take the columns of the test images.

    Args:
        scores: One row per image, condition and detector.

    Raises:
        DataError: There is no test image.
    """
    test = scores[scores["split"] == "test"]
    if test.empty:
        raise DataError(f"scores: expected rows of the split 'test', got only {sorted(scores['split'].unique())}")
    codes, names = pd.factorize(test["source_id"])
    order = np.argsort(codes, kind="stable")
    test = test.iloc[order]
    verdicts = [str(column) for column in test.columns if str(column).startswith(VERDICT_PREFIX)]
    return ScoreColumns(
        score=check_scores(test["score"].to_numpy()),
        success=test["success"].to_numpy(dtype=bool),
        correct=test["correct"].to_numpy(dtype=bool),
        source=codes[order],
        verdicts={column.removeprefix(VERDICT_PREFIX): test[column].to_numpy(dtype=bool) for column in verdicts},
        n_sources=len(names),
        groups=_groups(test),
    )


def _groups(test: pd.DataFrame) -> dict[str, dict[GroupKey, Index]]:
    keys = ["detector", *GROUP_COLUMNS]
    found = test[keys].astype("category").groupby(keys, sort=False, observed=True).indices
    groups: dict[str, dict[GroupKey, Index]] = {}
    for key, positions in cast("Mapping[tuple[str, str, str, str, str], Index]", found).items():
        detector, attack, criterion, form, variant = key
        groups.setdefault(detector, {})[attack, criterion, form, variant] = np.sort(positions)
    return groups
