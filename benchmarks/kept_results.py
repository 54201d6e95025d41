"""Small files of a finished run for ``docs/results``: what the tables of the documentation are compared with.

python -m benchmarks.kept_results data/mnist/08_reporting docs/results/mnist
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

FPR = 0.05  # of the detectors in the table of the gate
DIGITS = 6  # significant ones: tables show four at most
SIMILARITY = ("similarity", "similarity-and-detector")
"""Attacks on gates that ask the twin whether two pictures show the same person."""
LESSER = ("random-noise", "selective", "single-step", "unbounded", "multi-target-joined", "multi-target-twin")
"""Attacks that do not aim at a verifier."""
SOURCES = {"face_gate_similarity.csv": "face_gate.csv"}
"""Tables of the run that are kept under another name."""
KEEP = {
    "adaptive_summary.csv": (
        lambda table: table[(table["attack"] == "union") & (table["classifier"] == "network")],
        ["detector", "norm", "epsilon", "criterion", "n", "fooled_rate", "n_clean", "clean_fpr_05", "reliable"],
        ["success_fpr_01", "success_fpr_05", "success_low_fpr_05", "success_high_fpr_05"],
    ),
    "detection_metrics.csv": (
        lambda table: table[(table["attack"] == "macro") & (table["variant"] == "float")],
        ["detector", "criterion", "form", "n_attacks", "n_natural", "auc"],
        ["fpr_01", "fpr_05", "tpr_at_fpr_01", "tpr_at_fpr_05"],
    ),
    "benign_changes.csv": (lambda table: table, ["detector", "change", "train", "n", "accuracy"], ["fpr_01", "fpr_05"]),
    "face_gate.csv": (
        lambda table: table[
            (table["gate"] == "detector")
            & ~table["attack"].isin(SIMILARITY)
            & (table["calibrated_on"] == "validation")
            & (table["fpr"] == FPR)
        ],
        ["configuration", "kind", "attack", "form", "norm", "epsilon", "people", "n"],
        ["before", "before_low", "before_high", "after", "after_low", "after_high"],
    ),
    "face_gate_similarity.csv": (
        lambda table: table[
            table["configuration"].isin(["twin", "similarity", "twin and similarity"])
            & ((table["kind"] == "impersonation") | (table["form"] == "none"))
            & ~table["attack"].isin(LESSER)
            & (table["norm"] != "l2")
            & (table["fpr"] == FPR)
        ],
        ["configuration", "calibrated_on", "n_twin_pairs", "kind", "attack", "epsilon", "people", "n"],
        ["before", "after", "after_low", "after_high"],
    ),
    "leaderboard.csv": (lambda table: table, [], []),
}
"""Of each table: its rows, columns that name and count, columns that measure; no columns stand for all."""


def keep(reporting: Path, folder: Path) -> list[Path]:
    """Copy rows and columns of the tables of a run.

    Args:
        reporting: Folder ``08_reporting`` of the run; a table that it lacks is left out.
        folder: Made where it does not exist.

    Returns:
        The files that were written.

    Raises:
        ValueError: The run left none of the tables.
    """
    found = [name for name in KEEP if (reporting / SOURCES.get(name, name)).exists()]
    if not found:
        raise ValueError(
            f"expected one of {', '.join(KEEP)} in {reporting}, got none; name the folder of a finished run"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in found:
        _small(
            pd.read_csv(reporting / SOURCES.get(name, name), keep_default_na=False, na_values=[""]), *KEEP[name]
        ).to_csv(folder / name, index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")
    return [folder / name for name in found]


def _small(
    table: pd.DataFrame, rows: Callable[[pd.DataFrame], pd.DataFrame], naming: list[str], measured: list[str]
) -> pd.DataFrame:
    columns = [*naming, *measured]
    return rows(table)[columns] if columns else rows(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kept_results", description=__doc__.partition("\n")[0])
    parser.add_argument("reporting", type=Path, help="folder 08_reporting of a finished run")
    parser.add_argument("folder", type=Path, help="where the small files go, such as docs/results/mnist")
    given = parser.parse_args(arguments)
    for path in keep(given.reporting, given.folder):
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
