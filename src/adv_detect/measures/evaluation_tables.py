"""Tables for readers, made from the detection metrics and the attack records.

`metric_table` (the long table that all of these read) is made in `adv_detect.measures.detection_metrics`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from adv_detect.errors import DataError
from adv_detect.measures.detection_metrics import metric_table
from adv_detect.measures.detector_keys import (
    ALL,
    NATURAL,
    REFERENCE,
    SUMMARY_ROWS,
    TRAINED_ON_ALL,
    WORST,
    describe_detectors,
)
from adv_detect.measures.intervals import wilson_interval
from adv_detect.measures.reference_tables import (
    MISSING,
    attacks_on_features,
    average_over_seeds,
    format_score,
    ordered_attacks,
    reference_numbers,
    reference_table,
    select,
)

__all__ = [
    "attack_table",
    "average_over_seeds",
    "describe_detectors",
    "format_score",
    "metric_table",
    "quantisation_table",
    "reference_numbers",
    "reference_table",
    "score_samples",
    "select",
    "to_markdown",
    "train_test_matrix",
]

RECORD_COLUMNS = ("attack", "criterion", "success", "l2", "linf", "gradient_evaluations")


def train_test_matrix(
    metrics: pd.DataFrame,
    *,
    configuration: str,
    criterion: str,
    form: str = "early",
    variant: str = "float",
    value: str = "auc",
) -> pd.DataFrame:
    """Tabulate detection of attacks that a detector's training left out.

    Args:
        metrics: Result of `metric_table`.
        configuration: Name of the configuration.
        criterion: Criterion of training and test.
        form: Form of the test attacks.
        variant: Variant of the test images.
        value: A metric's column.

    Returns:
        Means over seeds: index ``trained_on``, a column per test attack and ``macro``. The cell (``without-x``, ``x``)
        is the detection of an attack never seen. All rows are of detectors of this criterion alone, and of the seeds
        with which attacks were left out.
    """
    keep = (
        (metrics["configuration"] == configuration)
        & (metrics["trained_criterion"] == criterion)
        & (metrics["trained_on"] != REFERENCE)
        & (metrics["criterion"] == criterion)
        & (metrics["form"] == form)
        & (metrics["variant"] == variant)
        & ~metrics["attack"].isin([ALL, WORST])
    )
    rows = metrics[keep]
    left_out = rows[rows["trained_on"] != TRAINED_ON_ALL]
    rows = rows[rows["seed"].isin(left_out["seed"])] if len(left_out) else rows
    matrix = rows.pivot_table(index="trained_on", columns="attack", values=value, aggfunc="mean", sort=False)
    return matrix.reindex(columns=ordered_attacks(matrix.columns, last=attacks_on_features(metrics)))


def quantisation_table(metrics: pd.DataFrame, *, detector: str, criterion: str) -> pd.DataFrame:
    """Float images against the same images rounded to 8 bits.

    Args:
        metrics: Result of `metric_table`.
        detector: Key of the detector.
        criterion: Criterion of the attacks.

    Returns:
        Per attack: ``form``, ``n_adversarial`` (float successes), ``n_survived`` and ``survival_rate`` (still fool the
        network when rounded), ``auc_float`` (of all successes) and ``auc_8bit`` (of the survivors).
    """
    keep = (metrics["detector"] == detector) & (metrics["criterion"] == criterion)
    rows = metrics[keep & ~metrics["attack"].isin(SUMMARY_ROWS)]
    if "n_survived" not in rows.columns:
        return pd.DataFrame(columns=["attack", "form"])
    keys = ["attack", "form"]
    floats = rows[rows["variant"] == "float"].groupby(keys, sort=False, observed=True)
    rounded = rows[rows["variant"] == "8bit"].groupby(keys, sort=False, observed=True)
    left = floats[["n_adversarial", "auc"]].mean().rename(columns={"auc": "auc_float"})
    right = rounded[["n_survived", "survival_rate", "auc"]].mean().rename(columns={"auc": "auc_8bit"})
    table = left.join(right, how="inner").reset_index()
    order = [*keys, "n_adversarial", "n_survived", "survival_rate", "auc_float", "auc_8bit"]
    return table[order].astype({"n_adversarial": int, "n_survived": int})


def attack_table(attack_records: pd.DataFrame, *, confidence_level: float = 0.95) -> pd.DataFrame:
    """Tabulate success and cost of the attacks on the network.

    Args:
        attack_records: A row per source image, attack and criterion.
        confidence_level: Coverage of the interval of the success rate (Wilson).

    Returns:
        Per attack and criterion: ``n_attacked``, ``n_success``, ``success_rate`` with ``success_low`` and
        ``success_high``; over successes ``l2_mean``, ``l2_median``, ``linf_mean``, ``linf_median``, in pixel units of
        the network; ``gradient_evaluations`` per attacked image. With a column ``form`` where the records have it, and
        ``n_non_finite``, failures because of NaN or infinity, where there are any.

    Raises:
        DataError: Columns are missing or there is no record.
    """
    missing = [column for column in RECORD_COLUMNS if column not in attack_records.columns]
    if missing or attack_records.empty:
        raise DataError(f"attack records: expected rows with the columns {list(RECORD_COLUMNS)}, missing are {missing}")
    keys = ["attack", *(["form"] if "form" in attack_records.columns else []), "criterion"]
    rows = [
        dict(zip(keys, key, strict=True)) | _attack_row(part, confidence_level)
        for key, part in attack_records.groupby(keys, sort=False, observed=True)
    ]
    table = pd.DataFrame(rows)
    if "non_finite" in attack_records.columns and attack_records["non_finite"].any():
        counts = attack_records.groupby(keys, sort=False, observed=True)["non_finite"].sum()
        table["n_non_finite"] = counts.to_numpy(dtype=int)
    return table


def _attack_row(records: pd.DataFrame, confidence_level: float) -> dict[str, Any]:
    success = records["success"].to_numpy(dtype=bool)
    done = records[success]
    low, high = wilson_interval(int(success.sum()), len(success), confidence_level=confidence_level)
    row: dict[str, Any] = {"n_attacked": len(success), "n_success": int(success.sum())}
    row |= {"success_rate": float(success.mean()), "success_low": low, "success_high": high}
    for norm in ("l2", "linf"):
        row |= {f"{norm}_mean": float(done[norm].mean()), f"{norm}_median": float(done[norm].median())}
    return row | {"gradient_evaluations": float(records["gradient_evaluations"].mean())}


def score_samples(
    scores: pd.DataFrame, *, detector: str, criterion: str, form: str | None = None, variant: str = "float"
) -> tuple[np.ndarray[Any, Any], dict[str, np.ndarray[Any, Any]]]:
    """Test scores of one detector, as the plots take them.

    Args:
        scores: One row per image, condition and detector.
        detector: Key of the detector.
        criterion: Attacks wanted.
        form: ``early``, ``confident`` or ``unseen``; all when None.
        variant: Variant of the adversarial images.

    Returns:
        Scores of the natural test images ``(Q,)`` and, per attack, of its successes ``(P,)``.

    Raises:
        DataError: The detector has no natural test images.
    """
    rows = scores[(scores["detector"] == detector) & (scores["split"] == "test")]
    natural = rows[(rows["attack"] == NATURAL) & (rows["variant"] == "float")]["score"].to_numpy()
    if not len(natural):
        raise DataError(f"scores: expected natural test images of detector {detector!r}, got none")
    kept = rows[(rows["criterion"] == criterion) & (rows["variant"] == variant) & rows["success"].astype(bool)]
    kept = kept if form is None else kept[kept["form"] == form]
    return natural, {
        str(attack): part["score"].to_numpy() for attack, part in kept.groupby("attack", sort=False, observed=True)
    }


def to_markdown(table: pd.DataFrame, *, digits: int = 3) -> str:
    """Write a table as GitHub-flavoured Markdown.

    Args:
        table: Any table; the index is left out.
        digits: Decimal places of floats.

    Returns:
        The text, ending in a newline; a ``|`` inside a cell is escaped.
    """
    header = [_cell(column, digits) for column in table.columns]
    body = [[_cell(value, digits) for value in row] for row in table.itertuples(index=False, name=None)]
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: object, digits: int) -> str:
    if isinstance(value, float | np.floating):
        return MISSING if np.isnan(value) else f"{value:.{digits}f}"
    return str(value).replace("|", r"\|")
