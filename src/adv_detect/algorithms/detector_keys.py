"""Names in the result tables: detectors and their keys, controls, summary rows, and how a reader sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from adv_detect.errors import DataError
from adv_detect.params import DetectorParams

NATURAL = "natural"
NOISE = "noise"
MARGIN = "margin"
UNTRAINED = "untrained"
CONTROLS = (MARGIN, UNTRAINED)
CONTROL_LABELS = {MARGIN: "control: margin only", UNTRAINED: "control: untrained detector"}
UNTRAINED_DRAWS = 10
"""Random weights that the untrained control is averaged over: a single draw is as often far above .5 as far below."""
CONTROL_KEYS = (MARGIN, *(f"{UNTRAINED}/{draw}" for draw in range(UNTRAINED_DRAWS)))
ALL, MACRO, WORST = "all", "macro", "worst"
SUMMARY_ROWS = (ALL, MACRO, WORST)
BOTH_CRITERIA = "both"
TRAINED_ON_ALL = "all"
REFERENCE = "reference"
"""In the place of what a detector was trained on: it is a published one."""
CLASS, FEATURES = "class", "features"
"""What an attack aims at."""
DETECTOR_COLUMNS = (
    "detector", "configuration", "kind", "representative", "distance", "order",
    "trained_criterion", "trained_on", "seed",
)  # fmt: skip
REPRESENTATIVE_LABELS = {"medoid": "M", "centroid": "C"}
DISTANCE_LABELS = {"euclidean": "L2", "cosine": "cos", "mahalanobis": "Mahalanobis"}
KIND_LABELS = {"lstm": "LSTM", "bilstm": "BiLSTM", "mlp": "MLP"}


def detector_summary(keys: Iterable[str], configurations: Mapping[str, DetectorParams]) -> pd.DataFrame:
    """Describe detectors by their keys.

    Args:
        keys: ``<configuration>/<criterion>/<trained on>/<seed>``, or one of `CONTROL_KEYS`.
        configurations: What each configuration reads and how.

    Returns:
        One row per detector with the columns `DETECTOR_COLUMNS`. Controls have empty descriptions; the seed of the
        margin is -1.

    Raises:
        DataError: A key has another form, or its configuration is not known.
    """
    return pd.DataFrame([_describe(key, configurations) for key in keys], columns=list(DETECTOR_COLUMNS))


def _describe(key: str, configurations: Mapping[str, DetectorParams]) -> dict[str, Any]:
    if key in CONTROL_KEYS:
        name, _, draw = key.partition("/")
        control = (key, name, "control", "", "", "", "none", "none", int(draw or -1))
        return dict(zip(DETECTOR_COLUMNS, control, strict=True))
    parts = key.split("/")
    if len(parts) != 4 or not parts[3].isdigit():
        raise DataError(f"expected a detector key '<configuration>/<criterion>/<trained on>/<seed>', got {key!r}")
    name, criterion, trained_on, seed = parts
    if name not in configurations:
        raise DataError(f"detector {key!r}: expected a configuration of {sorted(configurations)}, got {name!r}")
    one = configurations[name]
    values = (key, name, one.kind, one.representative, one.distance, one.order, criterion, trained_on, int(seed))
    return dict(zip(DETECTOR_COLUMNS, values, strict=True))


def configuration_label(row: Mapping[str, Any]) -> str:
    """How a reader sees a configuration, in the paper's terms: ``LSTM + M + cos``.

    Args:
        row: A row with the columns ``configuration``, ``kind``, ``representative``, ``distance``, ``order``.

    Returns:
        The label; controls are named as such.
    """
    if row["configuration"] in CONTROLS:
        return CONTROL_LABELS[row["configuration"]]
    parts = [
        KIND_LABELS.get(row["kind"], str(row["kind"])),
        REPRESENTATIVE_LABELS.get(row["representative"], str(row["representative"])),
        DISTANCE_LABELS.get(row["distance"], str(row["distance"])),
    ]
    return " + ".join([*parts, "ranked"] if row["order"] == "ranked" else parts)


def series_label(label: str, trained_criterion: str) -> str:
    """Label of a configuration's detectors of one training: names those trained on both criteria."""
    return f"{label} (both)" if trained_criterion == BOTH_CRITERIA else label


def configuration_labels(table: pd.DataFrame) -> dict[str, str]:
    """Labels of all configurations of a table, in order of appearance, controls last.

    Two configurations that would read the same (they differ in width or ``top_k``) carry their names as well.

    Args:
        table: Any table with the columns `DETECTOR_COLUMNS`.

    Returns:
        Label per configuration name.
    """
    rows = table.drop_duplicates("configuration").to_dict("records")
    labels = {str(row["configuration"]): configuration_label({str(k): v for k, v in row.items()}) for row in rows}
    shared = [label for label in labels.values() if list(labels.values()).count(label) > 1]
    named = {name: f"{label} ({name})" if label in shared else label for name, label in labels.items()}
    ordered = [name for name in named if name not in CONTROLS] + [name for name in CONTROLS if name in named]
    return {name: named[name] for name in ordered}
