"""Detection metrics of synthetic scores in shards: peak memory and time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from adv_detect.measures.detection_metrics import measure_scores
from adv_detect.measures.detector_keys import DETECTOR_COLUMNS, MARGIN
from adv_detect.measures.score_parts import ScoreParts, score_content
from adv_detect.sharding import ShardContent, ShardStore
from benchmarks.measure import Measured, Row, Settings, in_child

GROUP = "score parts"
GOAL_MIB = 2048.0
PART = 100_000
ATTACKS = 9
RATES = ("01", "05")


@dataclass(frozen=True)
class Size:
    """How many synthetic scores.

    Attributes:
        images: Rows of each detector: natural images and ``ATTACKS`` attacked copies of each.
        detectors: Number of detectors.
        part: Images in a file.
    """

    images: int
    detectors: int
    part: int = PART


WARM = Size(images=10_000, detectors=2, part=1000)


def measure_score_parts(settings: Settings) -> Iterator[Row]:
    """Evaluate ten million rows x ten detectors, and a tenth of the detectors, each in a process of its own."""
    images = settings.size(10_000_000, 100_000)
    few, many = (_measured(Size(images, count, settings.size(PART, 5000))) for count in (1, 10))
    note = (
        f"synthetic scores: {images:,} rows x 10 detectors, {ATTACKS} attacks, intervals from 1,000 resamples; "
        f"{many.seconds:,.0f} s; with one detector {few.peak_mib:,.0f} MiB and {few.seconds:,.0f} s; AUC of the first "
        f"detector {many.result:.6f} and {few.result:.6f}"
    )
    yield Row(GROUP, "peak memory of evaluation", (many.peak_mib,), note, GOAL_MIB, at_most=True, unit="MiB")
    ratio = many.peak_mib / few.peak_mib
    yield Row(GROUP, "peak memory, ten detectors / one", (ratio,), "the same two runs", 1.1, at_most=True)


def _measured(size: Size) -> Measured:
    with TemporaryDirectory() as folder, TemporaryDirectory() as warm:
        write_scores(Path(folder), size)
        write_scores(Path(warm), WARM)
        return in_child(evaluate, folder, warm=(warm,))


def keys_of(count: int) -> list[str]:
    """Name detectors; the first is the margin."""
    return [MARGIN, *(f"synthetic/{number}" for number in range(1, count))]


def write_scores(folder: Path, size: Size) -> None:
    """Write normal scores, shifted by attack and detector, a shard for each part of each attack."""
    store, sources = ShardStore(str(folder)), size.images // (1 + ATTACKS)
    for attack in range(1 + ATTACKS):
        for start in range(0, sources, size.part):
            numbers = np.arange(start, min(start + size.part, sources))
            store.write(f"{attack:02}-{start:010}", _scores(attack, numbers, size.detectors), "synthetic")


def _scores(attack: int, numbers: np.ndarray, detectors: int) -> ShardContent:
    rng, natural, count = np.random.default_rng([attack, int(numbers[0])]), attack == 0, len(numbers)
    facts = {name: torch.zeros(count, dtype=torch.int64) for name in ("label", "predicted")}
    facts |= {name: torch.zeros(count) for name in ("margin", "l2", "linf")}
    facts |= {
        name: torch.from_numpy(rng.random(count) < share) for name, share in (("success", 0.9), ("correct", 0.95))
    }
    shared = {
        "attack": "natural" if natural else f"synthetic-{attack}",
        "criterion": "none" if natural else "untargeted",
        "form": "none" if natural else "early",
        "variant": "float",
        "split": "test",
        "adversarial": not natural,
        "source_ids": [f"synthetic-{number:09}" for number in numbers],
    }
    scores = {
        key: torch.from_numpy(
            np.random.default_rng([attack, int(numbers[0]), index]).normal(
                0.0 if natural else 0.5 + 0.1 * attack + 0.1 * index, 1.0, count
            )
        ).float()
        for index, key in enumerate(keys_of(detectors))
    }
    limits = {key: dict(zip(RATES, (2.326, 1.645), strict=True)) for key in scores}
    return score_content(facts, shared, scores, dict.fromkeys(scores, torch.zeros(count)), limits)


def evaluate(folder: str) -> float:
    """Measure as evaluation does; the pooled area of the first detector."""
    scores = ScoreParts(ShardStore(folder))
    detectors = pd.DataFrame({name: scores.detectors if name == "detector" else "x" for name in DETECTOR_COLUMNS})
    table, _ = measure_scores(scores, detectors, resamples=1000)
    return float(table.query("detector == @MARGIN and attack == 'all'")["auc"].iloc[0])
