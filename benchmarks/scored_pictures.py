"""How memory and time of scoring pictures grow with their number."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.main_job import fresh_project, run_kedro
from benchmarks.measure import Row, Settings

GROUP = "scored pictures"
ENVIRONMENT = "test"
MEMORY_GOAL = 1.10
PICTURES, QUICK = 10_000, 200
SIDE, STROKES = 28, 3


def measure_scored_pictures(settings: Settings) -> Iterator[Row]:
    """`kedro run --pipeline=scoring` on some pictures and on ten times as many, each a process of its own."""
    few = settings.size(PICTURES, QUICK)
    with fresh_project() as folder:
        run_kedro(folder, "--env", ENVIRONMENT)
        found = {count: _score(folder, count) for count in (few, 10 * few)}
    (spent, peak), (longer, higher) = found.values()
    note = (
        f"{SIDE} x {SIDE} grey PNG files in one zip, detector of the environment {ENVIRONMENT}, {few:,} and "
        f"{10 * few:,} pictures: {peak:,.0f} and {higher:,.0f} MiB of the whole process"
    )
    outcome = {"peak_mib": higher, "other_peak_mib": peak}
    name = "peak memory of scoring, ten times the pictures"
    yield Row(GROUP, name, (higher / peak,), note, MEMORY_GOAL, at_most=True, outcome=outcome)
    rate = 9 * few / (longer - spent) if longer > spent else float("nan")
    note = f"the same; {spent:.0f} and {longer:.0f} s with start and page, {rate:,.0f} of the further pictures a second"
    yield Row(GROUP, "time of scoring, ten times the pictures", (longer / spent,), note)


def _score(folder: Path, count: int) -> tuple[float, float]:
    """Seconds and peak memory in MiB of scoring so many pictures."""
    pictures = folder / f"pictures-{count}.zip"
    write_pictures(pictures, count)
    _, spent, peak = run_kedro(
        folder, "--env", ENVIRONMENT, "--pipeline", "scoring", f"--params=scoring.images={pictures}"
    )
    return spent, peak


def write_pictures(path: Path, count: int) -> None:
    """Write so many pictures of random strokes, no two alike, into a zip."""
    draw = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            archive.writestr(f"{number // 1000:03d}/{number:06d}.png", _picture(draw))


def _picture(draw: np.random.Generator) -> bytes:
    """A PNG of a few bright bars on black."""
    pixels = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for row, column, value in draw.integers(0, (SIDE - 8, SIDE - 8, 256), size=(STROKES, 3)):
        pixels[row : row + 8, column : column + 2] = value
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="PNG")
    return sink.getvalue()
