"""The table of detection metrics: from one row per image and detector to one row per detector and attack."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from adv_detect.algorithms.roc import BoolArray, FloatArray, ranking_metrics
from adv_detect.errors import DataError
from adv_detect.measures.detector_keys import (
    ALL,
    CLASS,
    DETECTOR_COLUMNS,
    FEATURES,
    MACRO,
    MARGIN,
    NATURAL,
    NOISE,
    WORST,
    metric_column_order,
)
from adv_detect.measures.grouped_bootstrap import Bootstrap, choose_bootstrap
from adv_detect.measures.leaderboard import compared_rows
from adv_detect.measures.score_columns import Index, ScoreColumns, ScoreSource, ScoreTable
from adv_detect.names import FLOAT, NO_CRITERION
from adv_detect.progress import track

Row: TypeAlias = dict[str, Any]
Condition: TypeAlias = tuple[str, str, str]
"""Criterion, form and variant of an attack."""

MEAN_COLUMNS = ("auc", "eer", "eer_accuracy")


def metric_table(scores: pd.DataFrame | ScoreSource, detectors: pd.DataFrame, **settings: Any) -> pd.DataFrame:
    """Measure as :func:`measure_scores` does, and give the table alone.

    Args:
        scores: One row per image, condition and detector.
        detectors: Result of `detector_summary`.
        **settings: As :func:`measure_scores` takes them.

    Returns:
        The table.
    """
    return measure_scores(scores, detectors, **settings)[0]


def measure_scores(
    scores: pd.DataFrame | ScoreSource,
    detectors: pd.DataFrame,
    *,
    on_features: Collection[str] = (),
    resamples: int = 1000,
    confidence_level: float = 0.95,
    seed: int = 0,
    progress: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure every detector on every attack of the test split.

    Only successful adversarial examples are compared with the natural images (which include those that the network
    gets wrong); failed attempts are counted apart. Columns of the result:

    - ``detector`` and what it is: ``configuration``, ``kind``, ``representative``, ``distance``, ``order``,
      ``trained_criterion``, ``trained_on`` (``all`` or ``without-<attack>``), ``seed``. Controls are ``margin`` (minus
      the gap of the two largest logits) and ``untrained/<draw>`` (random weights).
    - ``attack``, ``criterion``, ``form`` (``early``, ``confident`` or ``unseen``), ``variant``. Per criterion, form and
      variant there are three summary rows: ``all`` (adversarials pooled), ``macro`` (mean over the attacks of that
      criterion and form that had a success) and ``worst`` (the attack with the least AUC, named in ``worst_attack``;
      not for ``noise``). They cover the attacks that aim at the class, as the published figures do; those that aim at
      the features have rows of their own and are in the summary only where there are no others.
    - Where there is no attack at all, one row per detector with the attack ``natural``: its false-positive rates.
    - ``aims_at``: ``class`` or ``features``.
    - ``variant``: ``float``; ``8bit`` (pixels rounded to 256 levels; only images that still fool the network
      count, see ``n_survived`` and ``survival_rate``, the share of the float successes); ``noise`` (random noise of the
      norm of the perturbation, where that was a success: **not** adversarial, so an AUC far above 0.5 says that the
      detector fires on any change).
    - ``auc`` with the bootstrap bounds ``auc_low``, ``auc_high``; ``n_adversarial``, ``n_natural``.
    - ``margin_gain``, ``margin_gain_low``, ``margin_gain_high``: AUC minus that of the margin control on the same
      images, with a paired interval; the detector beats the margin where the lower bound is above 0.
    - ``eer``, ``eer_threshold``, ``eer_accuracy``, ``nearest_fpr``, ``nearest_tpr``: read off the test images.
    - ``tpr_at_fpr_01`` ...: share of adversarials flagged at thresholds fixed on clean validation images;
      ``fpr_01`` ...: share of test naturals flagged there; ``fpr_misclassified_01`` ...: of those naturals that the
      network gets wrong (``n_misclassified``).
    - ``n_attempted``, ``n_failed`` and ``failed_flagged_01`` ...: attempts that did not fool the network, and the
      share of them flagged.

    Args:
        scores: One row per image, condition and detector, as the scoring step writes them; or such rows in files, of
            which those of one detector at a time are in memory.
        detectors: Result of `detector_summary` (further columns are ignored).
        on_features: Names of the attacks that aim at the features.
        resamples: Bootstrap resamples; 0 leaves the intervals empty.
        confidence_level: Coverage of the intervals.
        seed: Fixes the resamples, the same for all detectors.
        progress: Whether progress is shown.

    Returns:
        The table, a row per detector x attack x criterion x variant; and the resamples of the mean area that detectors
        are compared by: ``detector``, ``form``, ``resample``, ``auc``, the mean over the attacks of a form and the
        criteria that the detector is meant for, where all detectors draw the same images.

    Raises:
        DataError: Columns are missing, a score is NaN, there are no natural test images, or a scored detector is not
            described in ``detectors``.
    """
    source = ScoreTable(scores) if isinstance(scores, pd.DataFrame) else scores
    _check(source, detectors)
    bootstrap = choose_bootstrap(source.n_sources, resamples=resamples, confidence_level=confidence_level, seed=seed)
    names = track(source.detectors, "detection metrics", unit="detectors", shown=progress)
    measured = {
        name: _Measurement(name, source.columns(name), bootstrap, frozenset(on_features)).found for name in names
    }
    control = measured.get(MARGIN)
    rows = [
        {"detector": name} | row | _gain(row, one, control, bootstrap)
        for name, one in measured.items()
        for row in one.rows
    ]
    table = detectors[list(DETECTOR_COLUMNS)].merge(pd.DataFrame(rows), on="detector", how="inner")
    return table[metric_column_order(table.columns)], _resamples(measured, table)


def _check(scores: ScoreSource, detectors: pd.DataFrame) -> None:
    missing = [column for column in DETECTOR_COLUMNS if column not in detectors.columns]
    if missing:
        raise DataError(f"detectors: expected the columns {list(DETECTOR_COLUMNS)}, missing are {missing}")
    unknown = sorted(set(scores.detectors) - set(detectors["detector"]))
    if unknown:
        raise DataError(f"scores: expected detectors of {sorted(detectors['detector'])}, got also {unknown}")


def _resamples(measured: Mapping[str, _Found], table: pd.DataFrame) -> pd.DataFrame:
    """Average the replicates of the rows of which :func:`compared_rows` makes a mean."""
    frames = []
    for (detector, form), rows in compared_rows(table).groupby(["detector", "form"], sort=False):
        one = measured[str(detector)]
        keys = zip(rows["attack"], rows["criterion"], strict=True)
        areas = np.mean([one.replicates[attack, (criterion, str(form), FLOAT)] for attack, criterion in keys], axis=0)
        frames.append({"detector": detector, "form": form, "resample": np.arange(len(areas)), "auc": areas})
    empty = pd.DataFrame(columns=["detector", "form", "resample", "auc"])
    return pd.concat(map(pd.DataFrame, frames), ignore_index=True) if frames else empty


@dataclass(frozen=True)
class _Naturals:
    """The natural images of one detector, with its false-positive rates on them."""

    scores: FloatArray
    sample: Any
    rates: Row


def _naturals(columns: ScoreColumns, positions: Index, bootstrap: Bootstrap) -> _Naturals:
    wrong = positions[~columns.correct[positions]]
    rates: Row = {"n_natural": len(positions), "n_misclassified": len(wrong)}
    for rate, flagged in columns.verdicts.items():
        rates[f"fpr_{rate}"] = _share(flagged[positions])
        rates[f"fpr_misclassified_{rate}"] = _share(flagged[wrong])
    return _Naturals(columns.score[positions], bootstrap.natural(columns.score[positions]), rates)


def _share(flags: BoolArray) -> float:
    return float(flags.mean()) if len(flags) else float("nan")


def _attempts(columns: ScoreColumns, positions: Index, kept: Index, floats: Index, variant: str) -> Row:
    """Counts of attempts and failures or, for rounded images, of survivors among the float successes."""
    if variant == "8bit":
        before = columns.source[floats[columns.success[floats]]]
        survived = int(np.isin(columns.source[kept], before).sum())
        return {"n_survived": survived, "survival_rate": survived / len(before) if len(before) else float("nan")}
    if variant == NOISE:
        return {}
    failed = positions[~columns.success[positions]]
    shares = {f"failed_flagged_{rate}": _share(flagged[failed]) for rate, flagged in columns.verdicts.items()}
    return {"n_attempted": len(positions), "n_failed": len(failed)} | shares


@dataclass(frozen=True)
class _Found:
    """All rows of one detector, with their bootstrap replicates.

    Attributes:
        rows: One row per attack and condition, then the summary rows.
        replicates: Areas under the curve ``(B,)`` per attack and condition.
        aucs: The area itself, per attack and condition.
    """

    rows: list[Row] = field(default_factory=list)
    replicates: dict[tuple[str, Condition], FloatArray] = field(default_factory=dict)
    aucs: dict[tuple[str, Condition], float] = field(default_factory=dict)


class _Measurement:
    """Measures one detector; what is ``found`` holds no score, so that scores of one detector at a time are held."""

    def __init__(
        self, detector: str, columns: ScoreColumns, bootstrap: Bootstrap, on_features: frozenset[str] = frozenset()
    ) -> None:
        self.found = _Found()
        self._columns, self._bootstrap, self._on_features = columns, bootstrap, on_features
        self._sums: dict[tuple[str, Condition], Any] = {}
        groups = columns.groups.get(detector, {})
        self._naturals = {
            key[3]: _naturals(columns, positions, bootstrap) for key, positions in groups.items() if key[0] == NATURAL
        }
        if "float" not in self._naturals:
            raise DataError(f"scores: expected natural test images of detector {detector!r}, got none")
        conditions: dict[Condition, dict[str, Index]] = {}
        for (attack, criterion, form, variant), positions in groups.items():
            if attack != NATURAL:
                kept = positions[columns.success[positions]]
                conditions.setdefault((criterion, form, variant), {})[attack] = kept
                floats = groups.get((attack, criterion, form, "float"), positions)
                extra = _attempts(columns, positions, kept, floats, variant)
                self._measure(attack, (criterion, form, variant), kept, extra)
        for condition, attacks in conditions.items():
            self._summarise(condition, attacks)
        if not conditions:
            nothing = {"n_adversarial": 0, "auc": float("nan")}
            replicates = np.full(bootstrap.resamples, np.nan)
            self._keep(NATURAL, (NO_CRITERION, NO_CRITERION, FLOAT), nothing | self._naturals[FLOAT].rates, replicates)

    def _natural(self, condition: Condition) -> _Naturals:
        return self._naturals.get(condition[2], self._naturals["float"])

    def _measure(self, attack: str, condition: Condition, kept: Index, extra: Row, attacks: Sequence[str] = ()) -> None:
        """Compare adversarial rows, those of ``attacks`` where given, with the naturals; no AUC without a success."""
        natural, columns = self._natural(condition), self._columns
        row = extra | {"n_adversarial": len(kept), "auc": float("nan")} | natural.rates
        row |= {f"tpr_at_fpr_{rate}": _share(flagged[kept]) for rate, flagged in columns.verdicts.items()}
        replicates = np.full(self._bootstrap.resamples, np.nan)
        if len(kept):
            row |= ranking_metrics(columns.score[kept], natural.scores)
            replicates = self._bootstrap.areas(self._summed(attack, condition, kept, attacks))
        self._keep(attack, condition, row, replicates)

    def _summed(self, attack: str, condition: Condition, kept: Index, attacks: Sequence[str]) -> Any:
        """Sum up what the resampled area of some rows is made of; for several attacks, add up what there is."""
        if attacks:
            return sum(self._sums[name, condition] for name in attacks)
        columns, natural = self._columns, self._natural(condition)
        found = self._bootstrap.sums(
            columns.score[kept], natural.sample, sources=columns.source[kept], n_sources=columns.n_sources
        )
        self._sums[attack, condition] = found
        return found

    def _keep(self, attack: str, condition: Condition, row: Row, replicates: FloatArray) -> None:
        low, high = self._bootstrap.interval(replicates)
        aims_at = FEATURES if attack in self._on_features else CLASS
        key = {"attack": attack, "aims_at": aims_at} | dict(
            zip(("criterion", "form", "variant"), condition, strict=True)
        )
        self.found.rows.append(row | key | {"auc_low": low, "auc_high": high})
        self.found.replicates[attack, condition] = replicates
        self.found.aucs[attack, condition] = row["auc"]

    def _summarise(self, condition: Condition, attacks: Mapping[str, Index]) -> None:
        """Add the rows ``all``, ``macro`` and ``worst`` of one criterion, form and variant."""
        found = [row for row in self.found.rows if _key(row)[1] == condition and row["n_adversarial"]]
        rows = [row for row in found if row["aims_at"] == CLASS] or found
        if not rows:
            return
        pooled = [row["attack"] for row in rows]
        self._measure(ALL, condition, np.concatenate([attacks[name] for name in pooled]), {}, pooled)
        replicates = np.stack([self.found.replicates[_key(row)] for row in rows]).mean(axis=0)
        counts = {"n_adversarial": sum(row["n_adversarial"] for row in rows), "n_attacks": len(rows)}
        self._keep(MACRO, condition, counts | self._natural(condition).rates | _means(rows), replicates)
        if condition[2] != NOISE:
            worst = min(rows, key=lambda row: float(row["auc"]))
            name = worst["attack"]
            self._keep(WORST, condition, worst | {"worst_attack": name}, self.found.replicates[name, condition])


def _means(rows: Sequence[Row]) -> Row:
    names = [*MEAN_COLUMNS, *(name for name in rows[0] if name.startswith("tpr_at_fpr_"))]
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


def _key(row: Row) -> tuple[str, Condition]:
    return row["attack"], (row["criterion"], row["form"], row["variant"])


def _gain(row: Row, detector: _Found, control: _Found | None, bootstrap: Bootstrap) -> Row:
    """Difference to the margin control; for ``worst``, to the control on that same attack."""
    attack, condition = _key(row)
    against = (row.get("worst_attack", attack), condition)
    if control is None or against not in control.replicates:
        return {}
    low, high = bootstrap.interval(detector.replicates[attack, condition] - control.replicates[against])
    return {"margin_gain": row["auc"] - control.aucs[against], "margin_gain_low": low, "margin_gain_high": high}
