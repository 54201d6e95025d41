"""Measure this project beside others, write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from adv_detect.memory import keep_freed_memory
from benchmarks.attacks import measure_attacks
from benchmarks.deep_features import measure_deep_features
from benchmarks.detectors import measure_training
from benchmarks.extraction import measure_extraction
from benchmarks.gradients import measure_gradients
from benchmarks.growth import measure_growth
from benchmarks.latency import measure_latency
from benchmarks.machine import BUSY, Load, load_average, machine, versions
from benchmarks.main_job import measure_main_job
from benchmarks.measure import Row, Settings
from benchmarks.medoids import measure_medoids
from benchmarks.minimal_norm import measure_minimal_norm, measure_minimal_norm_faces
from benchmarks.profile import measure_profile
from benchmarks.ray_workers import measure_ray
from benchmarks.score_parts import measure_score_parts
from benchmarks.scored_pictures import measure_scored_pictures
from benchmarks.scoring import measure_scoring
from benchmarks.serving import measure_serving
from benchmarks.table import frame_of, markdown, merge, slug_of, write_parquet, write_section

SUBJECTS: dict[str, Callable[[Settings], Iterator[Row]]] = {
    "attacks": measure_attacks,
    "minimal-norm": measure_minimal_norm,
    "minimal-norm-faces": measure_minimal_norm_faces,
    "gradients": measure_gradients,
    "extraction": measure_extraction,
    "medoids": measure_medoids,
    "detectors": measure_training,
    "scoring": measure_scoring,
    "score-parts": measure_score_parts,
    "scored-pictures": measure_scored_pictures,
    "serving": measure_serving,
    "latency": measure_latency,
    "deep-features": measure_deep_features,
    "profile": measure_profile,
    "growth": measure_growth,
    "ray": measure_ray,
    "main-job": measure_main_job,
}
DOCUMENT = Path("docs", "benchmarks.md")
RESULTS = Path("benchmarks", "results")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for, print each row as it is found, write the table.

    Args:
        arguments: Options; None takes those of the command line.

    Returns:
        0, or 1 where a subject failed; the others are written all the same.
    """
    options = _options(arguments)
    settings = Settings(options.quick, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    rows: list[Row] = []
    keep_freed_memory()
    before = load_average()
    if Load(before, before).busy:
        print(f"warning: load {before:.1f}, above {BUSY:g} a core: other work disturbs the figures", file=sys.stderr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        failed = [name for name in options.only if not _measure(name, settings, rows)]
    out = options.out or (None if options.quick else DOCUMENT)
    if out is not None and rows:
        _write(out, rows, settings, Load(before, load_average()))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: shows that all works")
    parser.add_argument(
        "--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), metavar="NAME",
        help=f"measure these, and keep what the table holds of the others: {', '.join(SUBJECTS)}",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, help=f"document to write into (default: {DOCUMENT}; a quick run writes only with --out)"
    )
    return parser.parse_args(arguments)


def _measure(name: str, settings: Settings, rows: list[Row]) -> bool:
    """Add the rows of one subject if it comes to its end, so that a failure leaves its old ones; whether it did."""
    started = time.perf_counter()
    found: list[Row] = []
    try:
        for row in SUBJECTS[name](settings):
            found.append(row)
            spent = time.perf_counter() - started
            print(f"{name} [{spent:4.0f} s] {row.name} | {row.median:.3g} | {row.verdict} | {row.note}", flush=True)
    except Exception:
        traceback.print_exc()
        return False
    rows.extend(found)
    return True


def _write(out: Path, rows: Sequence[Row], settings: Settings, load: Load) -> None:
    where = machine(settings.device, load)
    slug = slug_of(where) + ("-quick" if settings.quick else "")
    results = (RESULTS if out == DOCUMENT else out.parent) / f"{slug}.parquet"
    frame = merge(results, frame_of(rows, machine=where, versions=versions(), quick=settings.quick))
    write_parquet(results, frame)
    write_section(out, slug, markdown(frame))
    print(f"written: {out}, {results}")


if __name__ == "__main__":
    raise SystemExit(main())
