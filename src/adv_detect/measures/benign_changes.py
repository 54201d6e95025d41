"""False alarms on honest pictures after benign changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adv_detect.measures.detector_keys import MARGIN
from adv_detect.measures.intervals import wilson_interval
from adv_detect.names import LEARNED_FROM_ALL, REFERENCE, UNCHANGED
from adv_detect.params import BenignChangeParams

SHOWN_RATE = "05"
"""The rate, as in the names of columns, that figures, sentences and logged metrics speak of."""


def first_seed_detectors(summary: pd.DataFrame) -> list[str]:
    """Choose the detectors to measure: of each configuration and criterion the first seed, trained on everything.

    Args:
        summary: One row per trained detector.

    Returns:
        Their keys; those trained without one attack and those of further seeds are left out.
    """
    whole = summary[summary["trained_on"].isin([*LEARNED_FROM_ALL, REFERENCE])]
    first = whole.drop_duplicates(["configuration", "trained_criterion", "trained_on"])
    return [str(key) for key in first["detector"]]


def change_rows(
    change: str,
    classes: Mapping[str, NDArray[np.int64]],
    scores: Mapping[str, NDArray[np.float32]],
    thresholds: Mapping[str, Mapping[str, float]],
    *,
    confidence_level: float,
) -> list[dict[str, Any]]:
    """Measure detectors on the images of one change.

    Args:
        change: Its name.
        classes: ``label``, ``predicted`` and ``before`` (predicted on the unchanged image), each ``(n,)``.
        scores: Scores ``(n,)`` by detector.
        thresholds: By detector, the threshold by the rate as it is written in columns.
        confidence_level: Coverage of the intervals.

    Returns:
        A row per detector: detector, change, n_images, n (those that the network classifies as before), accuracy (of
        the network, of all images), and per rate ``fpr_05``, ``fpr_05_low``, ``fpr_05_high``: the share of the n with a
        score above the threshold, and its interval (Wilson); NaN where n is 0.
    """
    label, predicted, before = (classes[name] for name in ("label", "predicted", "before"))
    same = predicted == before
    facts = {"change": change, "n_images": len(label), "n": int(same.sum()), "accuracy": _share(predicted == label)}
    rows = []
    for detector, values in scores.items():
        row = {"detector": detector, **facts}
        for rate, limit in thresholds[detector].items():
            flagged = values[same] > limit
            low, high = _interval(flagged, confidence_level)
            row |= {f"fpr_{rate}": _share(flagged), f"fpr_{rate}_low": low, f"fpr_{rate}_high": high}
        rows.append(row)
    return rows


def benign_table(
    rows: list[dict[str, Any]], described: pd.DataFrame, changes: Mapping[str, BenignChangeParams]
) -> pd.DataFrame:
    """Put detectors and changes beside their figures.

    Args:
        rows: Rows of :func:`change_rows`, of all changes.
        described: One row per detector or control, as ``describe_detectors`` gives it.
        changes: The changes, by name.

    Returns:
        A row per detector x change, detectors in the order of ``described``: what the detector is, ``change``
        (``unchanged`` for the images as they are), ``kind_of_change``, ``train`` (whether detectors that learn from
        benign changes may learn from it), and the columns of :func:`change_rows`.
    """
    measured = pd.DataFrame(rows)
    kinds = {UNCHANGED: ("", True)} | {name: (one.kind, one.train) for name, one in changes.items()}
    measured.insert(2, "kind_of_change", measured["change"].map({name: kind for name, (kind, _) in kinds.items()}))
    measured.insert(3, "train", measured["change"].map({name: train for name, (_, train) in kinds.items()}))
    order = {key: place for place, key in enumerate(described["detector"])}
    table = described[[one for one in described.columns if not one.startswith("validation_")]].merge(
        measured, on="detector"
    )
    return table.sort_values("detector", key=lambda keys: keys.map(order), kind="stable", ignore_index=True)


def worst_change(table: pd.DataFrame, detector: str, *, rate: str = SHOWN_RATE) -> dict[str, Any] | None:
    """Find the change on which a detector raises most false alarms.

    Args:
        table: Result of :func:`benign_table`.
        detector: Key of the detector.
        rate: The nominal rate, as in the names of columns.

    Returns:
        The row; None where nothing was measured.
    """
    rows = table[(table["detector"] == detector) & (table["change"] != UNCHANGED)] if len(table) else table
    measured = rows.dropna(subset=[f"fpr_{rate}"]) if len(rows) else rows
    ordered = measured.sort_values(f"fpr_{rate}", ascending=False, kind="stable") if len(measured) else measured
    return {str(name): one for name, one in ordered.iloc[0].items()} if len(ordered) else None


def benign_metrics(table: pd.DataFrame, champion: str, *, rates: Collection[str] = (SHOWN_RATE,)) -> dict[str, float]:
    """Name the figures that MLflow keeps.

    Args:
        table: Result of :func:`benign_table`.
        champion: Key of the registered detector.
        rates: Nominal rates, as in the names of columns.

    Returns:
        ``champion/benign/<change>/fpr_05``, ``margin/...`` beside it, ``.../worst/fpr_05``, and the accuracy of the
        network, ``network/benign/<change>/accuracy``.
    """
    found: dict[str, float] = {}
    for name, key in (("champion", champion), (MARGIN, MARGIN)):
        rows = table[table["detector"] == key]
        for rate in rates:
            values = dict(zip(rows["change"], rows[f"fpr_{rate}"], strict=True))
            if (worst := worst_change(table, key, rate=rate)) is not None:
                values["worst"] = worst[f"fpr_{rate}"]
            found |= {f"{name}/benign/{change}/fpr_{rate}": float(value) for change, value in values.items()}
    of_network = table.drop_duplicates("change")
    accuracies = zip(of_network["change"], of_network["accuracy"], strict=True)
    found |= {f"network/benign/{change}/accuracy": float(value) for change, value in accuracies}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _share(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else float("nan")


def _interval(flags: NDArray[np.bool_], level: float) -> tuple[float, float]:
    if not len(flags):
        return float("nan"), float("nan")
    return wilson_interval(int(flags.sum()), len(flags), confidence_level=level)
