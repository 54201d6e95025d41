"""Exact medoid against SciPy's full distance matrix: time, peak memory, same index."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from adv_detect.algorithms.medoids import medoid_index
from benchmarks.measure import MIB, OURS, Row, Settings, in_child, in_turns, ratios

GROUP = "medoids"
GOAL, GOAL_COUNT = 10.0, 6000
COUNTS = (1000, 3000, GOAL_COUNT)
LARGEST = 20_000
WIDTH = 200
WARM = 64
BYTES_OF_SCIPY = 8 * 1.5
"""For each pair of rows: the condensed distances and the square matrix."""


def points(count: int) -> Tensor:
    """Vectors in the type that features have, float32."""
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(0))


def our_medoid(count: int) -> int:
    return medoid_index(points(count))


def scipy_medoid(count: int) -> int:
    from scipy.spatial.distance import pdist, squareform

    return int(squareform(pdist(points(count).double().numpy())).sum(axis=1).argmin())


def measure_medoids(settings: Settings) -> Iterator[Row]:
    """Both on the processor, where the representatives are computed; then ours alone on more than SciPy can hold."""
    for count in COUNTS[:1] if settings.quick else COUNTS:
        yield _against_scipy(count, settings)
    if not settings.quick:
        alone = in_child(our_medoid, LARGEST, warm=(WARM,))
        note = (
            f"ours alone, D = {WIDTH}, peak memory +{alone.added_mib:.0f} MiB; SciPy's two matrices would take "
            f"{LARGEST**2 * BYTES_OF_SCIPY / MIB:,.0f} MiB"
        )
        outcome = {"added_mib": alone.added_mib}
        yield Row(GROUP, f"n = {LARGEST:,}: seconds of ours", (alone.seconds,), note, unit="s", outcome=outcome)


def _against_scipy(count: int, settings: Settings) -> Row:
    works = {OURS: partial(our_medoid, count), "scipy": partial(scipy_medoid, count)}
    times = in_turns(works, settings.device, rounds=settings.rounds)
    mine, theirs = (in_child(work, count, warm=(WARM,)) for work in (our_medoid, scipy_medoid))
    same = mine.result == theirs.result
    note = (
        f"D = {WIDTH}; ours / theirs: index {mine.result} / {theirs.result}, {min(times[OURS]):.3f} / "
        f"{min(times['scipy']):.3f} s, peak memory +{mine.added_mib:.0f} / +{theirs.added_mib:.0f} MiB"
    )
    return Row(
        GROUP, f"n = {count:,}: SciPy / ours", ratios(times["scipy"], times[OURS]), note,
        GOAL if count == GOAL_COUNT else None, worse="" if same else "another index",
        outcome={"added_mib": mine.added_mib, "other_added_mib": theirs.added_mib},
    )  # fmt: skip
