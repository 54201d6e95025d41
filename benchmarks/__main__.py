"""Command line: ``python -m benchmarks`` measures everything and writes ``docs/benchmarks.md``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.attacks import measure_attacks, measure_gradients
from benchmarks.deep_features import measure_deep_features
from benchmarks.growth import measure_growth
from benchmarks.harness import Row, Settings, machine, versions
from benchmarks.main_job import measure_main_job
from benchmarks.parts import measure_parts
from benchmarks.table import markdown, slug_of, write_parquet, write_section

SUBJECTS: dict[str, Callable[[Settings], Iterator[Row]]] = {
    "attacks": measure_attacks,
    "gradients": measure_gradients,
    "parts": measure_parts,
    "deep-features": measure_deep_features,
    "growth": measure_growth,
    "main-job": measure_main_job,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure what is asked for, print each row as it is found, write the table.

    Args:
        arguments: Options; None takes those of the command line.

    Returns:
        0, or 1 where a subject failed; the others are written all the same.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: shows that all works")
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="subjects to measure")
    parser.add_argument("--out", type=Path, default=None, help="document to write into (default: docs/benchmarks.md)")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")

    settings = Settings(options.quick, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    rows: list[Row] = []
    failed = False
    for name in options.only:
        try:
            for row in SUBJECTS[name](settings):
                rows.append(row)
                print(f"{row.group} | {row.name} | {row.median:.3g} | {row.verdict} | {row.note}", flush=True)
        except Exception as exc:
            failed = True
            print(f"{name} failed: {type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
    where = machine(settings.device)
    out = options.out or (None if options.quick or options.only != list(SUBJECTS) else Path("docs", "benchmarks.md"))
    if out is not None and rows:
        slug = slug_of(where)
        write_section(out, slug, markdown(rows, where, versions(), quick=options.quick))
        write_parquet(out.with_name(f"benchmarks-{slug}.parquet"), rows, where, versions())
        print(f"written: {out}")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
