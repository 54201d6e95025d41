"""The detection table in the form of the paper: configurations down, attacks across, one table per criterion."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import pandas as pd

from adv_detect.measures.detector_keys import (
    ALL,
    BOTH_CRITERIA,
    CONTROLS,
    FEATURES,
    MACRO,
    REFERENCE,
    SUMMARY_ROWS,
    TRAINED_ON_ALL,
    WORST,
    configuration_labels,
    series_label,
)
from adv_detect.names import NO_CRITERION

OTHER_CRITERION = {"targeted": "untargeted", "untargeted": "targeted"}
MISSING = "–"  # noqa: RUF001 - an en dash in tables


def select(
    metrics: pd.DataFrame,
    *,
    criterion: str,
    form: str = "early",
    variant: str = "float",
    trained: str = "own",
    trained_on: str = TRAINED_ON_ALL,
) -> pd.DataFrame:
    """Select the rows of one condition, with the controls and the detectors that learned from no attack.

    Args:
        metrics: Result of `metric_table`.
        criterion: ``targeted`` or ``untargeted``: the attacks tested.
        form: ``early``, ``confident`` or ``unseen``.
        variant: ``float``, ``8bit`` or ``noise``.
        trained: ``own``: detectors trained on this criterion (or on both); ``other``: on the other one only.
        trained_on: ``all`` (and published detectors that were taken over), or ``without-<attack>``.

    Returns:
        The rows, in the table's order; empty where nothing was measured.
    """
    wanted = {criterion, BOTH_CRITERIA} if trained == "own" else {OTHER_CRITERION.get(criterion, "")}
    sources = [trained_on, REFERENCE] if trained_on == TRAINED_ON_ALL else [trained_on]
    trained_rows = metrics["trained_criterion"].isin(wanted) & metrics["trained_on"].isin(sources)
    condition = (metrics["criterion"] == criterion) & (metrics["form"] == form) & (metrics["variant"] == variant)
    return metrics[condition & (trained_rows | (metrics["trained_criterion"] == NO_CRITERION))]


def average_over_seeds(rows: pd.DataFrame, value: str = "auc") -> pd.DataFrame:
    """Mean, spread and number of seeds of a metric.

    Args:
        rows: Rows of `select`.
        value: A metric's column.

    Returns:
        Columns ``configuration``, ``trained_criterion``, ``attack``, ``mean``, ``std`` (NaN for one seed), ``seeds``;
        in order of appearance.
    """
    keys = ["configuration", "trained_criterion", "attack"]
    grouped = rows.groupby(keys, sort=False, observed=True)[value]
    return grouped.agg(mean="mean", std="std", seeds="count").reset_index()


def reference_numbers(
    metrics: pd.DataFrame,
    *,
    criterion: str,
    form: str = "early",
    variant: str = "float",
    trained: str = "own",
    value: str = "auc",
) -> pd.DataFrame:
    """Numbers of `reference_table`: a row per configuration and attack, averaged over seeds.

    Args:
        metrics: Result of `metric_table`.
        criterion: Attacks tested.
        form: ``early``, ``confident`` or ``unseen``.
        variant: ``float``, ``8bit`` or ``noise``.
        trained: ``own`` or ``other``; see `select`.
        value: A metric's column.

    Returns:
        See `average_over_seeds`; without the pooled row, controls last.
    """
    rows = select(metrics, criterion=criterion, form=form, variant=variant, trained=trained)
    numbers = average_over_seeds(rows[rows["attack"] != ALL], value)
    is_control = numbers["configuration"].isin(CONTROLS)
    return pd.concat([numbers[~is_control], numbers[is_control]], ignore_index=True)


def reference_table(
    metrics: pd.DataFrame,
    *,
    criterion: str,
    form: str = "early",
    variant: str = "float",
    trained: str = "own",
    value: str = "auc",
    published: Mapping[str, Mapping[str, float]] | None = None,
) -> pd.DataFrame:
    """The table of the paper: a row per configuration, a column per attack, macro, worst, then attacks on features.

    Args:
        metrics: Result of `metric_table`.
        criterion: Attacks tested.
        form: ``early``, ``confident`` or ``unseen``.
        variant: ``float``, ``8bit`` or ``noise``.
        trained: ``own`` or ``other``; see `select`.
        value: A metric's column.
        published: Published numbers per label and attack (or ``macro``), shown in rows of their own at the end.

    Returns:
        Strings: ``detector``, the attacks on the class, ``macro`` and ``worst`` of them, the attacks on features; with
        the spread over seeds where there are several.
    """
    numbers = reference_numbers(metrics, criterion=criterion, form=form, variant=variant, trained=trained, value=value)
    labels = configuration_labels(metrics)
    columns = ordered_attacks(numbers["attack"].unique(), last=attacks_on_features(metrics))
    rows = []
    for key, part in numbers.groupby(["configuration", "trained_criterion"], sort=False):
        name, trained_criterion = map(str, key)
        label = series_label(labels[name], trained_criterion)
        scores = [format_score(mean, std) for mean, std in zip(part["mean"], part["std"], strict=True)]
        rows.append({"detector": label} | dict(zip(part["attack"], scores, strict=True)))
    for label, cited in (published or {}).items():
        cells = {attack: format_score(number) for attack, number in cited.items()}
        rows.append({"detector": f"published: {label}"} | cells)
    return pd.DataFrame(rows, columns=["detector", *columns]).fillna(MISSING)


def ordered_attacks(names: Iterable[str], last: Collection[str] = ()) -> list[str]:
    """Attacks in order of appearance, then ``macro`` and ``worst``, then those of ``last``."""
    present = [str(name) for name in names]
    first = [name for name in present if name not in SUMMARY_ROWS and name not in last]
    summary = [name for name in (MACRO, WORST) if name in present]
    return [*first, *summary, *(name for name in present if name in last)]


def attacks_on_features(metrics: pd.DataFrame) -> set[str]:
    """Names of the attacks of `metric_table` that aim at the features; they have no part in its summary rows."""
    if "aims_at" not in metrics.columns:
        return set()
    return {str(name) for name in metrics.loc[metrics["aims_at"] == FEATURES, "attack"].unique()} - set(SUMMARY_ROWS)


def format_score(mean: float, std: float = float("nan")) -> str:
    """Write a number in [0, 1] with three digits, as the paper does: ``.987``, ``.987 ± .004``."""
    if np.isnan(mean):
        return MISSING
    text = _three_digits(mean)
    return text if np.isnan(std) else f"{text} ± {_three_digits(std)}"


def _three_digits(number: float) -> str:
    text = f"{number:.3f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
