"""Run the main job as it was at a commit and as it is now, and compare the tables of results.

``python -m benchmarks.compare_results <commit> [--env test] [--params a.b=c] [--grown]``: both run in folders of their
own, in one thread, with the same raw data. What is not committed counts as now, unless git does not know the file.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

PROJECT = Path(__file__).resolve().parents[1]
TABLE = "detection_metrics.csv"
KEYS = ["detector", "attack", "criterion", "form", "variant"]
"""What makes a row of the table one of its kind."""
TOLERANCE = 1e-4
LAST_LINES = 15


@dataclass(frozen=True)
class Comparison:
    """How far two tables lie apart.

    Attributes:
        rows: Number of rows that both have.
        only_before: Keys of rows that only the first has.
        only_after: Keys of rows that only the second has.
        columns: Names of columns that only one has.
        differences: One row per common column, the largest difference first: column, largest (absolute difference of
            numbers, infinite where one of two is missing, or where texts differ), differing (rows above the tolerance),
            row (key of the largest).
    """

    rows: int
    only_before: list[str]
    only_after: list[str]
    columns: list[str]
    differences: pd.DataFrame

    def agrees(self, tolerance: float = TOLERANCE, *, grown: bool = False) -> bool:
        """Whether both have the same rows, with the same AUC; ``grown``: the second may have more of them."""
        auc = self.differences.set_index("column")["largest"]["auc"]
        further = bool(self.only_after) and not grown
        return self.rows > 0 and not self.only_before and not further and bool(auc <= tolerance)


def compare_tables(before: pd.DataFrame, after: pd.DataFrame, *, tolerance: float = TOLERANCE) -> Comparison:
    """Compare two tables of detection metrics, row by row.

    Args:
        before: One table, with the columns `KEYS` and ``auc``.
        after: The other; its rows and columns may stand in another order.
        tolerance: Differences above it are counted.

    Returns:
        The comparison.
    """
    first, second = (_by_key(table) for table in (before, after))
    shared = first.index.intersection(second.index)
    common = [name for name in first.columns if name in second.columns]
    rows = [_difference(first.loc[shared, name], second.loc[shared, name], tolerance) for name in common]
    found = pd.DataFrame(rows, columns=["column", "largest", "differing", "row"])
    return Comparison(
        rows=len(shared),
        only_before=sorted(first.index.difference(second.index)),
        only_after=sorted(second.index.difference(first.index)),
        columns=sorted(set(first.columns) ^ set(second.columns)),
        differences=found.sort_values("largest", ascending=False, kind="stable", ignore_index=True),
    )


def _by_key(table: pd.DataFrame) -> pd.DataFrame:
    keys = pd.Series([" ".join(map(str, row)) for row in table[KEYS].itertuples(index=False)], dtype=str)
    if keys.duplicated().any():
        raise SystemExit(f"expected each row once, got {keys[keys.duplicated()].iloc[0]!r} again")
    return table.drop(columns=KEYS).set_index(pd.Index(keys))


def _difference(first: pd.Series, second: pd.Series, tolerance: float) -> tuple[str, float, int, str]:
    if all(pd.api.types.is_numeric_dtype(one) for one in (first, second)):
        a, b = (one.to_numpy(dtype=np.float64) for one in (first, second))
        gaps = np.where(np.isnan(a) & np.isnan(b) | (a == b), 0.0, np.nan_to_num(np.abs(a - b), nan=np.inf))
    else:
        gaps = np.where(first.fillna("").astype(str) == second.fillna("").astype(str), 0.0, np.inf)
    if not len(gaps):
        return str(first.name), 0.0, 0, ""
    worst = int(gaps.argmax())
    return str(first.name), float(gaps[worst]), int((gaps > tolerance).sum()), first.index[worst] if gaps[worst] else ""


@contextmanager
def checkout(commit: str, project: Path = PROJECT) -> Iterator[Path]:
    """Lay out a commit in a folder that is removed afterwards, with the raw data of the project.

    Args:
        commit: As git names it.
        project: A repository.

    Yields:
        The folder.
    """
    with tempfile.TemporaryDirectory(prefix="compare-results-") as scratch:
        folder = Path(scratch) / "project"
        _git(project, "worktree", "add", "--quiet", "--detach", str(folder), commit)
        try:
            raw, own = project / "data" / "01_raw", folder / "data" / "01_raw"
            if raw.is_dir():
                shutil.rmtree(own, ignore_errors=True)
                own.parent.mkdir(exist_ok=True)
                own.symlink_to(raw.resolve())
            yield folder
        finally:
            _git(project, "worktree", "remove", "--force", str(folder))


def now(project: Path = PROJECT) -> str:
    """Name a commit that holds the tracked files as they are; it is on no branch where there are changes."""
    return _git(project, "stash", "create") or "HEAD"


def _git(project: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def run_main_job(folder: Path, options: Sequence[str]) -> pd.DataFrame:
    """Run ``kedro run`` in one thread and read its table.

    Args:
        folder: A project.
        options: Further options of ``kedro run``.

    Returns:
        The detection metrics.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", "PYTHONPATH": str(folder / "src")}
    environment.pop("MLFLOW_TRACKING_URI", None)  # each run is tracked in its own folder
    command = [sys.executable, "-m", "kedro", "run", *options]
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    found = sorted(folder.glob(f"data/**/{TABLE}"))
    if done.returncode or len(found) != 1:
        last = "\n".join(done.stdout.splitlines()[-LAST_LINES:])
        raise SystemExit(f"kedro run {' '.join(options)}: rc {done.returncode}, {len(found)} tables {TABLE}\n{last}")
    return pd.read_csv(found[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and tell by the exit code whether the results are the same."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare_results", description=__doc__)
    parser.add_argument("commit", help="what to compare with, as git names it")
    parser.add_argument("--env", help="environment of both runs; the default one without it")
    parser.add_argument("--params", help="parameters of both runs, as kedro run takes them")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="largest difference of an AUC")
    parser.add_argument("--grown", action="store_true", help="rows of new detectors and attacks are no difference")
    given = parser.parse_args(arguments)
    options = [f"--{name}={value}" for name in ("env", "params") if (value := getattr(given, name))]
    tables = []
    for commit in (given.commit, now()):
        print(f"kedro run {' '.join(options)} at {commit}", flush=True)
        with checkout(commit) as folder:
            tables.append(run_main_job(folder, options))
    result = compare_tables(*tables, tolerance=given.tolerance)
    print(f"{result.rows} rows compared, {len(result.only_before)} only before, {len(result.only_after)} only now")
    for name, keys in (("only before", result.only_before), ("only now", result.only_after)):
        counts = Counter(key.split(" ")[0] for key in keys)
        for detector, count in counts.items():
            print(f"  {name}: {count} rows of {detector}")
    if result.columns:
        print(f"columns in one table alone: {', '.join(result.columns)}")
    print(result.differences.to_string(index=False))
    return 0 if result.agrees(given.tolerance, grown=given.grown) else 1


if __name__ == "__main__":
    sys.exit(main())
