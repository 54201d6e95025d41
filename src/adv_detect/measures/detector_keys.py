"""Names in the result tables: detectors and their keys, controls, summary rows, and how a reader sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from adv_detect.names import (
    BOTH_CRITERIA,
    CONTROL_KEYS,
    CONTROLS,
    MARGIN,
    NATURAL,
    NO_CRITERION,
    NOISE,
    REFERENCE,
    TRAINED_ON_ALL,
    UNTRAINED,
)

__all__ = [  # and what is defined below
    "BOTH_CRITERIA", "CONTROLS", "CONTROL_KEYS", "MARGIN", "NATURAL", "NOISE", "REFERENCE", "TRAINED_ON_ALL",
    "UNTRAINED",
]  # fmt: skip

CONTROL_LABELS = {MARGIN: "control: margin only", UNTRAINED: "control: untrained detector"}
ALL, MACRO, WORST = "all", "macro", "worst"
SUMMARY_ROWS = (ALL, MACRO, WORST)
CLASS, FEATURES = "class", "features"
"""What an attack aims at."""
DETECTOR_COLUMNS = (
    "detector", "configuration", "kind", "representative", "distance", "order",
    "trained_criterion", "trained_on", "seed",
)  # fmt: skip
SUMMARY_FIGURES = ("validation_macro_auc", "validation_macro_auc_all")
REPRESENTATIVE_LABELS = {"medoid": "M", "centroid": "C"}
DISTANCE_LABELS = {"euclidean": "L2", "cosine": "cos", "mahalanobis": "Mahalanobis"}
KIND_LABELS = {"lstm": "LSTM", "bilstm": "BiLSTM", "mlp": "MLP"}


def describe_detectors(summary: pd.DataFrame) -> pd.DataFrame:
    """Describe trained detectors and controls, with the validation figures of the former.

    Args:
        summary: One row per trained detector, with the columns `DETECTOR_COLUMNS`.

    Returns:
        One row per detector or control with the columns `DETECTOR_COLUMNS` and `SUMMARY_FIGURES`. Controls have empty
        descriptions and figures that are NaN; the seed of the margin is -1.
    """
    controls = pd.DataFrame([_control(key) for key in CONTROL_KEYS], columns=list(DETECTOR_COLUMNS))
    trained = summary[[*DETECTOR_COLUMNS, *SUMMARY_FIGURES]]
    return pd.concat([trained, controls], ignore_index=True)


def rate_label(fpr: float) -> str:
    """Name a false-positive rate in a column, in percent: ``05`` for 0.05, ``00_5`` for 0.005."""
    whole, _, part = f"{100 * fpr:.6g}".partition(".")
    return f"{whole:0>2}" + (f"_{part}" if part else "")


def rate_text(label: str) -> str:
    """Write the rate of a column for a reader: ``5%`` for ``05``, ``0.5%`` for ``00_5``."""
    return f"{float(label.replace('_', '.')):g}%"


def _control(key: str) -> tuple[str | int, ...]:
    name, _, draw = key.partition("/")
    return key, name, "control", "", "", "", NO_CRITERION, "none", int(draw or -1)


def configuration_label(row: Mapping[str, Any]) -> str:
    """Label a configuration in the paper's terms: ``LSTM + M + cos``.

    Args:
        row: A row with the columns ``configuration``, ``kind``, ``representative``, ``distance``, ``order``.

    Returns:
        The label; controls are named as such, detectors that read no trajectories by their configuration.
    """
    if row["configuration"] in CONTROLS:
        return CONTROL_LABELS[row["configuration"]]
    if not row["representative"]:
        return str(row["configuration"])
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


def metric_column_order(columns: Iterable[str]) -> list[str]:
    """Order the columns of detection metrics: what the detector is, the attack, the areas; the others by name."""
    present = list(columns)
    first = [
        *DETECTOR_COLUMNS, "attack", "criterion", "form", "variant", "aims_at", "worst_attack", "auc", "auc_low",
        "auc_high", "margin_gain", "margin_gain_low", "margin_gain_high", "n_adversarial", "n_natural",
        "n_misclassified", "n_attacks", "n_attempted", "n_failed", "n_survived", "survival_rate", "eer",
        "eer_threshold", "eer_accuracy", "nearest_fpr", "nearest_tpr",
    ]  # fmt: skip
    known = [name for name in first if name in present]
    return known + sorted(name for name in present if name not in known)
