"""Exact medoid against SciPy's full distance matrix: time, peak memory, same index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from adv_detect.algorithms.medoids import medoid_index
from benchmarks.measure import OURS, Measured, Row, Settings, in_child, in_turns, ratios

GROUP = "medoids"
GOAL, GOAL_COUNT = 10.0, 6000
COUNTS = (1000, 3000, GOAL_COUNT, 10_000)
LARGEST = 20_000
WIDTH = 200
WARM = 64


def points(count: int) -> Tensor:
    """Vectors in the type that features have, float32."""
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(0))


def our_medoid(count: int) -> int:
    return medoid_index(points(count))


def scipy_medoid(count: int) -> int:
    return scipy_index(points(count))


def scipy_index(features: Tensor) -> int:
    """The medoid by the full distance matrix."""
    from scipy.spatial.distance import pdist, squareform

    return int(squareform(pdist(features.double().numpy())).sum(axis=1).argmin())


def measure_medoids(settings: Settings) -> Iterator[Row]:
    """Both on the processor, where the representatives are computed; the largest once, each in its own process."""
    for count in COUNTS[:1] if settings.quick else COUNTS:
        yield _against_scipy(count, settings)
    if not settings.quick:
        both = tuple(in_child(work, LARGEST, warm=(WARM,)) for work in (our_medoid, scipy_medoid))
        yield _row(LARGEST, both, (both[0].seconds,), (both[1].seconds,))


def _against_scipy(count: int, settings: Settings) -> Row:
    features = points(count)
    works = {OURS: partial(medoid_index, features), "scipy": partial(scipy_index, features)}
    times = in_turns(works, settings.device, rounds=settings.rounds)
    both = tuple(in_child(work, count, warm=(WARM,)) for work in (our_medoid, scipy_medoid))
    return _row(count, both, times[OURS], times["scipy"])


def _row(count: int, both: Sequence[Measured], ours: Sequence[float], theirs: Sequence[float]) -> Row:
    mine, other = both
    note = (
        f"D = {WIDTH}; ours / theirs: index {mine.result} / {other.result}, {min(ours):.3f} / {min(theirs):.3f} s, "
        f"peak memory +{mine.added_mib:.0f} / +{other.added_mib:.0f} MiB"
    )
    return Row(
        GROUP, f"n = {count:,}: SciPy / ours", ratios(theirs, ours), note, GOAL if count == GOAL_COUNT else None,
        worse="" if mine.result == other.result else "another index",
        outcome={"added_mib": mine.added_mib, "other_added_mib": other.added_mib},
    )  # fmt: skip
