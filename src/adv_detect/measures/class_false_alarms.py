"""False alarms on clean images of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adv_detect.errors import DataError
from adv_detect.measures.benign_changes import first_seed_detectors
from adv_detect.measures.detector_keys import MARGIN, describe_detectors
from adv_detect.measures.intervals import wilson_interval
from adv_detect.measures.score_columns import VERDICT_PREFIX
from adv_detect.names import NATURAL

RESAMPLES = 999
"""Random tables behind a p-value: none is below 1 / 1,000."""


def class_false_alarms(
    scores: pd.DataFrame, summary: pd.DataFrame, *, confidence_level: float, seed: int
) -> pd.DataFrame:
    """Measure how the false alarms of detectors spread over the classes of clean test images.

    Args:
        scores: One row per image x detector, with a verdict per rate.
        summary: One row per trained detector; of each configuration and criterion the first seed is measured, and
            the margin.
        confidence_level: Coverage of the intervals.
        seed: Of the random tables behind the p-values.

    Returns:
        A row per detector x true class, with detector, configuration, class, n, and per rate ``fpr_05``,
        ``fpr_05_low``, ``fpr_05_high`` (Wilson), and ``p_05``: how often images that are shuffled among classes differ
        as much between them (chi-square statistic; the same in all rows of a detector, NaN where nothing or everything
        is flagged).

    Raises:
        DataError: A detector has no score on a clean test image.
    """
    names = describe_detectors(summary).set_index("detector")["configuration"]
    clean = scores[(scores["split"] == "test") & (scores["attack"] == NATURAL)]
    verdicts = [str(one) for one in scores.columns if str(one).startswith(VERDICT_PREFIX)]
    parts = []
    for key in [*first_seed_detectors(summary), MARGIN]:
        rows = clean[clean["detector"] == key]
        if rows.empty:
            raise DataError(f"scores: expected clean test images scored by {key!r}, got none; run evaluation again")
        part = _by_class(rows, verdicts, confidence_level, seed)
        part.insert(0, "configuration", names[key])
        part.insert(0, "detector", key)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _by_class(rows: pd.DataFrame, verdicts: Sequence[str], level: float, seed: int) -> pd.DataFrame:
    labels = rows["label"].to_numpy()
    classes, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    columns: dict[str, Any] = {"class": classes, "n": counts}
    for column in verdicts:
        rate, flagged = column.removeprefix("verdict_"), rows[column].to_numpy(dtype=bool)
        hits = np.bincount(places, weights=flagged)
        pairs = zip(hits.astype(int).tolist(), counts.tolist(), strict=True)
        bounds = np.array([wilson_interval(hit, n, confidence_level=level) for hit, n in pairs])
        columns |= {rate: hits / counts, f"{rate}_low": bounds[:, 0], f"{rate}_high": bounds[:, 1]}
        columns[rate.replace("fpr", "p")] = spread_p_value(labels, flagged, seed=seed)
    return pd.DataFrame(columns)


def spread_p_value(labels: NDArray[np.int64], flagged: NDArray[np.bool_], *, seed: int) -> float:
    """Test whether classes are flagged alike, by shuffling the flags among the images.

    Args:
        labels: Class of each image, ``(n,)``.
        flagged: Whether it was flagged, ``(n,)``.
        seed: Of the shuffles.

    Returns:
        Share of the shuffles, the one seen included, whose chi-square statistic is at least as large; NaN where all
        images are flagged or none, or there is one class.
    """
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    total = int(flagged.sum())
    if len(counts) < 2 or total in (0, len(flagged)):
        return float("nan")
    # A shuffle draws how many flags each class gets; of the statistic only sum(hits^2 / n) depends on them.
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(counts, total, size=RESAMPLES)
    seen = np.bincount(places, weights=flagged)
    statistics = (drawn**2 / counts).sum(axis=1)
    return float((1 + (statistics >= (seen**2 / counts).sum() - 1e-9).sum()) / (1 + RESAMPLES))
