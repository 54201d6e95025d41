"""Verification and identification behind a detector that turns away what it flags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from adv_detect.algorithms.thresholds import thresholds_at_fpr
from adv_detect.measures.benign_changes import first_seed_detectors
from adv_detect.measures.faces.second_opinion import crossfit_parts
from adv_detect.measures.intervals import wilson_interval
from adv_detect.names import BOTH_CRITERIA, DODGING, NATURAL, NO_CRITERION

FALSE_ACCEPT, FALSE_REJECT = "false_accept", "false_reject"
"""Kinds of clean pairs, or images: different people accepted; the same person, or the right one, turned away."""
CONDITION = ("attack", "criterion", "form", "norm", "epsilon", "knows", "people", "kind")
"""Columns that say what was done to the images of a group of rows."""
VALIDATION, PAIRS = "validation", "pairs"
"""Clean images that the detector's threshold rests on: validation images, or images of the verification pairs."""
PROTOCOL, KNOWN = "protocol", "known"
"""People of clean pairs: those of the verification protocol, strangers to the detector among them; those it knows."""

NOTHING = "nothing"
"""Value of ``knows``: the attack was made without the gate; otherwise the form of the gate that it was made against."""

Flags: TypeAlias = NDArray[np.bool_]
Scores: TypeAlias = NDArray[np.float64]
NOT_READ = float("nan")
"""In the place of a threshold: this gate does not ask."""


@dataclass(frozen=True)
class GateThreshold:
    """Thresholds of a gate at one rate.

    Attributes:
        calibrated_on: ``validation`` or ``pairs``.
        fpr: False-positive rate of the detector, and share of clean pairs of the same person below ``twin``.
        value: Score above which an image is turned away; `NOT_READ` for a gate without a detector.
        n: Clean images that it rests on.
        twin: Similarity in the twin below which a pair is turned away; `NOT_READ` for a gate without it.
        n_pairs: Clean pairs of the same person that it rests on.
    """

    calibrated_on: str
    fpr: float
    value: float
    n: int
    twin: float = NOT_READ
    n_pairs: int = 0

    def flags(self, scores: Scores) -> Flags:
        """Tell which scores ``(N,)`` of the detector are turned away."""
        found: Flags = scores > self.value
        return found

    def parts(self, similarities: Scores) -> Flags:
        """Tell which similarities in the twin ``(N,)`` are turned away; one that is missing is."""
        return np.zeros(len(similarities), dtype=bool) if np.isnan(self.twin) else ~(similarities >= self.twin)


def gate_detectors(summary: pd.DataFrame) -> dict[str, str]:
    """Choose the detectors that stand in the gate: of each configuration the one of the first seed.

    Args:
        summary: One row per trained detector.

    Returns:
        Configuration by key. Of detectors that learned from attacks those of both criteria; where there are none, one
        per criterion, which is added to the name of the configuration.
    """
    compared = summary[summary["detector"].isin(first_seed_detectors(summary))]
    whole = compared["trained_criterion"].isin((BOTH_CRITERIA, NO_CRITERION))
    have = set(compared.loc[whole, "configuration"])
    chosen = compared[whole | ~compared["configuration"].isin(have)]
    return {
        str(row["detector"]): str(row["configuration"])
        if row["configuration"] in have
        else f"{row['configuration']} {row['trained_criterion']}"
        for row in chosen.to_dict("records")
    }


def gate_thresholds(validation: Scores, pairs: Scores, fprs: Iterable[float]) -> list[GateThreshold]:
    """Fix a detector's thresholds on validation images, and on images of the verification pairs.

    Args:
        validation: Its scores on clean validation images, ``(n,)``.
        pairs: Its scores on the images of verification pairs, ``(m,)``; empty for none.
        fprs: False-positive rates.

    Returns:
        The thresholds, by kind of images, then by rate.
    """
    found = []
    for name, scores in ((VALIDATION, validation), (PAIRS, pairs)):
        if len(scores):
            values = thresholds_at_fpr(torch.tensor(scores), fprs)
            found += [GateThreshold(name, fpr, value, len(scores)) for fpr, value in values.items()]
    return found


def gate_table(cases: pd.DataFrame, thresholds: Iterable[GateThreshold]) -> pd.DataFrame:
    """Count decisions before and after the gate.

    The gate accepts a pair if network and twin find the same person and no image is flagged. An attack gets through if
    the decision is the one that it wants and no image is flagged: people told apart by the twin are not accepted, which
    ends an impersonation and is what dodging wants. A clean pair is turned away if it was before, if the twin tells its
    images apart, or if one is flagged.

    Args:
        cases: One row per pair or image: the columns of `CONDITION`, ``wrong`` (decided as the attack wants, or for
            clean ones wrongly, without the gate), ``score`` (the detector's, the highest of the images) and
            ``twin_score`` (the pair's similarity in the twin, NaN for none).
        thresholds: Of one gate.

    Returns:
        One row per condition and threshold: the columns of `CONDITION`, calibrated_on, fpr, threshold, n_calibration,
        twin_threshold, n_twin_pairs, n, before, before_low, before_high (share decided wrongly, 95 %, Wilson), after,
        after_low, after_high, flagged (share with a flagged image), parted (share that the twin tells apart).
    """
    rows = []
    for condition, group in cases.groupby(list(CONDITION), sort=False, dropna=False):
        facts = dict(zip(CONDITION, condition, strict=True))
        wrong = group["wrong"].to_numpy(dtype=bool)
        scores, twin = (group[name].to_numpy(dtype=np.float64) for name in ("score", "twin_score"))
        kind = str(facts["kind"])
        rows += [facts | _row(kind, wrong, one.flags(scores), one.parts(twin), one) for one in thresholds]
    return pd.DataFrame(rows)


def crossfit_flags(scores: Scores, images: pd.DataFrame, folds: NDArray[np.int64], fpr: float) -> Flags:
    """Flag pairs at thresholds fixed on the images of the other folds.

    Args:
        scores: The higher score of each pair's two images, ``(N,)``.
        images: One row per image of the pairs: ``first_fold``, ``last_fold`` (smallest and largest fold of its pairs)
            and ``score``.
        folds: Fold of each pair, ``(N,)``.
        fpr: False-positive rate.

    Returns:
        The flags ``(N,)``; of a single fold at its own threshold.
    """
    flags = np.zeros(len(scores), dtype=bool)
    for fold in np.unique(folds):
        others = images[(images["first_fold"] > fold) | (images["last_fold"] < fold)]
        chosen = others if len(others) else images
        threshold = thresholds_at_fpr(torch.tensor(chosen["score"].to_numpy(dtype=np.float64)), [fpr])[fpr]
        flags[folds == fold] = scores[folds == fold] > threshold
    return flags


def clean_pair_rows(
    pairs: pd.DataFrame, images: pd.DataFrame, thresholds: Iterable[GateThreshold], *, similarity: float
) -> Iterator[dict[str, Any]]:
    """Count how many pairs of the verification protocol the gate turns away.

    Args:
        pairs: One row per clean pair: ``score`` (similarity), ``same``, ``fold``, ``detector_score`` (the higher one of
            its images), ``twin_score`` (similarity in the twin).
        images: One row per image of the pairs, as for :func:`crossfit_flags`.
        thresholds: Of one gate; at those calibrated on pairs each fold is judged by the images and pairs of the others.
        similarity: Similarity from which a pair is accepted.

    Yields:
        Rows as of :func:`gate_table`, ``people`` is ``protocol``.
    """
    scores, folds = pairs["detector_score"].to_numpy(dtype=np.float64), pairs["fold"].to_numpy(dtype=np.int64)
    accepted, same = pairs["score"].to_numpy() >= similarity, pairs["same"].to_numpy(dtype=bool)
    twin = pairs["twin_score"].to_numpy(dtype=np.float64)
    for one in thresholds:
        flags, parted = one.flags(scores), one.parts(twin)
        if one.calibrated_on == PAIRS:
            flags = flags if np.isnan(one.value) else crossfit_flags(scores, images, folds, one.fpr)
            parted = parted if np.isnan(one.twin) else crossfit_parts(twin, same, folds, one.fpr)
        for kind, rows in ((FALSE_REJECT, same), (FALSE_ACCEPT, ~same)):
            if rows.any():
                facts = clean_condition(kind, PROTOCOL)
                yield facts | _row(kind, (accepted != same)[rows], flags[rows], parted[rows], one)


def attack_label(table: pd.DataFrame) -> pd.Series[str]:
    """Name the attack of each row, with its norm and budget where it has one.

    Args:
        table: Rows with the columns attack, form, norm and epsilon.

    Returns:
        The names, such as ``bim, early`` or ``multi-target, linf 0.0157``.
    """
    budget = table["norm"].astype(str) + table["epsilon"].map(lambda one: "" if np.isnan(one) else f" {one:.3g}")
    how = budget.where(table["norm"] != "none", table["form"].astype(str))
    return table["attack"].astype(str) + ", " + how


def clean_condition(kind: str, people: str) -> dict[str, Any]:
    """Give the columns of `CONDITION` of clean pairs or images."""
    nothing = {"criterion": "none", "form": "none", "norm": "none", "epsilon": float("nan"), "knows": NOTHING}
    return {"attack": NATURAL, **nothing, "people": people, "kind": kind}


def higher_scores(known: Mapping[Any, float], *sides: Iterable[Any]) -> Scores:
    """Look up the detector's scores of the images of each pair, and take the highest.

    Args:
        known: Score by name of the image; one that could not be scored counts as flagged at any threshold.
        sides: Names of the images, a side of the pairs after the other.

    Returns:
        Shape ``(N,)``.
    """
    found = [[known.get(name, np.inf) for name in side] for side in sides]
    highest: Scores = np.max(np.nan_to_num(np.array(found, dtype=np.float64), nan=np.inf, posinf=np.inf), axis=0)
    return highest


def _row(kind: str, wrong: Flags, flagged: Flags, parted: Flags, threshold: GateThreshold) -> dict[str, Any]:
    after = {
        FALSE_REJECT: wrong | parted | flagged,
        DODGING: (wrong | parted) & ~flagged,
    }.get(kind, wrong & ~parted & ~flagged)
    facts = {"calibrated_on": threshold.calibrated_on, "fpr": threshold.fpr, "threshold": threshold.value}
    facts |= {"n_calibration": threshold.n, "twin_threshold": threshold.twin, "n_twin_pairs": threshold.n_pairs}
    shares = _share("before", wrong) | _share("after", after)
    told = {"flagged": float(flagged.mean()), "parted": float(parted.mean())}
    return facts | {"n": len(wrong)} | shares | told


def _share(name: str, happened: Flags) -> dict[str, float]:
    low, high = wilson_interval(int(happened.sum()), len(happened))
    return {name: float(happened.mean()), f"{name}_low": low, f"{name}_high": high}
