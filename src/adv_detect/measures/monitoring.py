"""Flag rates over time, drift against clean images, and near-copies, from a log of scored images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adv_detect.algorithms.thresholds import affordable
from adv_detect.measures.clean_flags import clean_flags

EDGES = (0.025, 0.975)
MOST_COMPARED = 20_000
"""Latest images among which near-copies are looked for."""

Floats: TypeAlias = NDArray[np.float64]
Bits: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Drift:
    """A two-sample test against clean images.

    Attributes:
        statistic: Largest distance of the distribution functions (scores), or chi squared (classes).
        p_value: Probability of one as large where nothing has changed.
        n: Images of the log.
        n_reference: Clean images.
    """

    statistic: float
    p_value: float
    n: int
    n_reference: int


def flag_rates(log: pd.DataFrame, *, hours: float) -> pd.DataFrame:
    """Count flagged images over time, beside what clean images would give.

    Args:
        log: One row per image: ``time`` (UTC), ``is_adversarial``, ``fpr`` (of the verdict), ``n_clean``.
        hours: Length of a span.

    Returns:
        One row per span and rate: start, fpr, n, flagged, rate, expected, low, high (95 % of what clean images give, as
        shares), p_value (of at least as many flagged).
    """
    starts = log["time"].dt.floor(pd.Timedelta(hours=hours))
    rows = []
    for (start, *_), part in log.groupby([starts, "fpr", "n_clean"], sort=True):
        fpr, n_clean = float(part["fpr"].iloc[0]), int(part["n_clean"].iloc[0])
        n, flagged = len(part), int(part["is_adversarial"].sum())
        clean = clean_flags(n, above=affordable(fpr, n_clean), n_clean=n_clean)
        low, high = (float(clean.ppf(edge)) / n for edge in EDGES)
        facts = {"start": start, "fpr": fpr, "n": n, "flagged": flagged, "rate": flagged / n}
        expected = {"expected": float(clean.mean()) / n, "low": low, "high": high}
        rows.append(facts | expected | {"p_value": float(clean.sf(flagged - 1))})
    return pd.DataFrame(rows)


def score_drift(scores: Floats, reference: Floats) -> Drift:
    """Compare the distribution of scores with that of clean images (Kolmogorov and Smirnov).

    Args:
        scores: Of the log, ``(n,)``.
        reference: Of clean images, ``(m,)``.

    Returns:
        The test.
    """
    from scipy.stats import ks_2samp

    found = ks_2samp(scores, reference)
    return Drift(float(found.statistic), float(found.pvalue), len(scores), len(reference))


def class_drift(predicted: pd.Series[Any], reference: pd.Series[Any]) -> Drift:
    """Compare how often each class is predicted with clean images (chi squared).

    Args:
        predicted: Class of each image of the log.
        reference: Class of each clean image.

    Returns:
        The test; with a p-value of 1 where one class alone occurs.
    """
    from scipy.stats import chi2_contingency

    counts = [one.astype(str).value_counts() for one in (predicted, reference)]
    table = pd.concat(counts, axis=1).fillna(0).to_numpy(dtype=np.float64).T
    if table.shape[1] < 2:
        return Drift(0.0, 1.0, len(predicted), len(reference))
    statistic, p_value, *_ = chi2_contingency(table)
    return Drift(float(statistic), float(p_value), len(predicted), len(reference))


def near_copies(log: pd.DataFrame, *, distance: float) -> pd.DataFrame:
    """Find groups of images that are copies of each other, or nearly so.

    Two images belong together where their sketches differ in at most a share of the bits; groups are connected.

    Args:
        log: One row per image: ``time``, ``digest``, ``sketch`` (hexadecimal), ``predicted_class``, ``is_adversarial``.
        distance: Largest share of differing bits.

    Returns:
        One row per group of two and more, the largest first: images, different (digests among them), classes (predicted
        among them), flagged (share), first, last (times), digest (of the first).
    """
    from scipy.sparse.csgraph import connected_components
    from sklearn.neighbors import radius_neighbors_graph

    recent = log.nlargest(MOST_COMPARED, "time").sort_values("time", kind="stable")
    columns = ["images", "different", "classes", "flagged", "first", "last", "digest"]
    if len(recent) < 2:
        return pd.DataFrame(columns=columns)
    bits = np.stack([sketch_bits(one) for one in recent["sketch"]]).astype(np.float64)
    graph = radius_neighbors_graph(bits, math.sqrt(distance * bits.shape[1]) + 1e-9)  # of bits: squares are their sum
    groups = connected_components(graph, directed=False)[1]
    found = recent.groupby(groups).agg(
        images=("digest", "size"),
        different=("digest", "nunique"),
        classes=("predicted_class", "nunique"),
        flagged=("is_adversarial", "mean"),
        first=("time", "min"),
        last=("time", "max"),
        digest=("digest", "first"),
    )
    several = found[found["images"] > 1]
    return several.sort_values(["images", "first"], ascending=[False, True])[columns].reset_index(drop=True)


def sketch_bits(text: str) -> Bits:
    """Read a sketch ``(128,)`` from its hexadecimal form."""
    found: Bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8)).astype(bool)
    return found
