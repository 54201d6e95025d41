"""Figures of README.md and docs/results.md against the small files of the runs that they name, in ``docs/results``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "docs/results"
READER, TWIN, JOINED = "lstm-centroid-mahalanobis-ranked/both/all/0", "twin/none/nothing/0", "twin-joined/both/all/0"
DETECTORS = (READER, TWIN, JOINED)
NUMBER = re.compile(r"\d*\.?\d+")
BUDGETS = {"mnist": [("linf", 0.2), ("linf", 0.3), ("l2", 2.0)], "lfw": [("linf", 2 / 255), ("linf", 4 / 255)]}
LEADERBOARDS = {
    "base": "## The default run\n",
    "mnist": "### Every detector, digits\n",
    "lfw": "### Every detector, faces\n",
    "cifar10": "## CIFAR-10\n",
}
"""Headings above the tables of all detectors."""
TITLES = {"mnist": "Linf .2", "lfw": "Linf 2 of 255"}


def table(page: str, first: str, heading: str = "") -> list[list[str]]:
    """Rows from the one whose first cell is given, below a heading, to the end of its table, without that cell."""
    text = (PROJECT / page).read_text(encoding="utf-8")
    assert heading in text
    lines = text[text.index(heading) :].splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(f"| {first} |")]
    assert starts, f"no table of {page} has a row {first!r}"
    rows = []
    for line in lines[starts[0] :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")][1:])
    return rows


def agree(cell: str, *values: float) -> bool:
    """Whether the numbers of a cell are values, rounded to the digits that it shows."""
    shown = NUMBER.findall(cell)
    return len(shown) == len(values) and all(
        abs(float(text) - value) <= 0.5000001 * 10 ** -len(text.partition(".")[2])
        for text, value in zip(shown, values, strict=True)
    )


def read(run: str, name: str) -> pd.DataFrame:
    return pd.read_csv(RESULTS / run / f"{name}.csv")


def lost(run: str, detector: str, norm: str, epsilon: float) -> tuple[float, float, float]:
    """Per cent of the images lost to the union of the attacks, with its interval."""
    rows = read(run, "adaptive_summary")
    near = (rows["epsilon"] - epsilon).abs() < 1e-6
    [row] = rows[(rows["detector"] == detector) & (rows["norm"] == norm) & near].to_dict("records")
    return tuple(100 * row[f"success{part}_fpr_05"] for part in ("", "_low", "_high"))


def area(run: str, detector: str) -> tuple[float, float]:
    """Macro-AUC on early and on confident attacks, mean of both criteria."""
    rows = read(run, "detection_metrics")
    means = rows[rows["detector"] == detector].groupby("form")["auc"].mean()
    return means["early"], means["confident"]


def flagged(run: str, detector: str) -> float:
    rows = read(run, "adaptive_summary")
    return 100 * rows[rows["detector"] == detector]["clean_fpr_05"].iloc[0]


def twin_cells(run: str) -> Iterator[tuple[str, tuple[float, ...]]]:
    rows = table("docs/results.md", TITLES[run])
    for budget, row in zip(BUDGETS[run], rows, strict=False):
        yield from ((cell, lost(run, one, *budget)) for one, cell in zip(DETECTORS, row, strict=True))
    clean, areas = rows[3][:3], rows[4][:3]
    yield from ((cell, (flagged(run, one),)) for one, cell in zip(DETECTORS, clean, strict=True))
    yield from ((cell, area(run, one)) for one, cell in zip(DETECTORS, areas, strict=True))


@pytest.mark.parametrize("run", BUDGETS)
def test_tables_of_the_twin(run):
    wrong = [(cell, values) for cell, values in twin_cells(run) if not agree(cell, *values)]

    assert not wrong


@pytest.mark.parametrize("run", LEADERBOARDS)
def test_the_table_of_all_detectors(run):
    found = read(run, "leaderboard")
    rows = table("docs/results.md", found["configuration"][0], LEADERBOARDS[run])
    wrong = []
    for row, one in zip(rows, found.to_dict("records"), strict=True):
        values = [one[f"{group}_auc_mean"] for group in ("early", "confident", "unseen")] + [100 * one["fpr_05"]]
        wrong += [
            (one["configuration"], cell) for cell, value in zip(row[1:5], values, strict=True) if not agree(cell, value)
        ]
        share, _, change = row[5].partition(" % (")
        beaten = "" if pd.isna(one["above_margin"]) else f"{one['above_margin']:.0f} of {one['attacks']}"
        if not agree(share, 100 * one["benign_fpr_05"]) or (change, *row[6:]) != (
            f"{one['benign_change']})",
            beaten,
            f"{one['forward_passes']:g}",
        ):
            wrong.append((one["configuration"], row[5], row[6]))

    assert not wrong


def test_other_rows_of_the_table_of_faces():
    norms, _, _, changes, _ = table("docs/results.md", TITLES["lfw"])[2:]
    benign = read("lfw", "benign_changes")
    benign = benign[benign["change"] != "unchanged"]

    assert agree(norms[0], *(lost("lfw", READER, "l2", epsilon)[0] for epsilon in (1.0, 2.0)))
    assert agree(norms[1], *lost("lfw", TWIN, "l2", 1.0), *lost("lfw", TWIN, "l2", 2.0))
    for one, cell in zip(DETECTORS, changes, strict=True):
        rates = 100 * benign[benign["detector"] == one]["fpr_05"]
        assert agree(cell, rates.min(), rates.max())


@pytest.mark.parametrize(
    ("title", "norm", "epsilon"), [("Linf .2", "linf", 0.2), ("Linf .3", "linf", 0.3), ("L2 2.0", "l2", 2.0)]
)
def test_the_table_of_the_embedded_twin(title, norm, epsilon):
    cells = table("docs/results.md", f"{title}, embedded")[0]
    detectors = (READER, f"{READER}/hardened-3", TWIN, JOINED)

    for one, cell in zip(detectors, cells, strict=True):
        assert agree(cell, *lost("base", one, norm, epsilon)), cell


@pytest.mark.parametrize(
    ("title", "norm", "epsilon"),
    [("Linf 2 of 255", "linf", 2 / 255), ("Linf 4 of 255", "linf", 4 / 255), ("L2 .5", "l2", 0.5)],
)
def test_the_table_of_cifar10(title, norm, epsilon):
    cells = table("docs/results.md", f"{title}, CIFAR-10")[0]

    moved = ("multiview-moved/both/all/0", "twin-multiview-moved/both/all/0")
    for one, cell in zip((READER, moved[0], TWIN, JOINED, moved[1]), cells, strict=True):
        assert agree(cell, *lost("cifar10", one, norm, epsilon)), cell


@pytest.mark.parametrize(
    "detector",
    [
        "view-consistency",
        "multiview",
        "twin-multiview-moved",
        "twin",
        "multiview-moved",
        "mahalanobis-layers",
        "nic",
        "margin",
    ],
)
def test_shares_found_on_cifar10(detector):
    row = read("cifar10", "leaderboard").set_index("configuration").loc[detector]
    found = table("docs/results.md", detector, "no more: SID")[0][4:]

    for group, cell in zip(("early", "unseen"), found, strict=True):
        assert agree(cell, *(100 * row[f"{group}_tpr_05_{kind}"] for kind in ("mean", "worst"))), cell


GATE = {
    "BIM, 8 of 255, impersonation": ("bim", "impersonation", None),
    "BIM without early stop, impersonation": ("bim-confident", "impersonation", None),
    "BIM without early stop, dodging": ("bim-confident", "dodging", None),
    "deep features, 5 of 255, impersonation": ("deep-features", "impersonation", None),
    "deep features, 7 of 255, impersonation": ("deep-features-7", "impersonation", None),
    "deep features, 10 of 255, impersonation": ("deep-features-10", "impersonation", None),
    "deep features without early stop, 10 of 255, impersonation": ("deep-features-10-confident", "impersonation", None),
    "**knows the detector**, 2 of 255, impersonation": ("verification", "impersonation", 2 / 255),
    "**knows the detector**, 4 of 255, impersonation": ("verification", "impersonation", 4 / 255),
    "**knows the detector**, 2 of 255, dodging": ("verification", "dodging", 2 / 255),
    "**knows the detector**, 4 of 255, dodging": ("verification", "dodging", 4 / 255),
    "clean pairs of people whom it knows, turned away": ("natural", "false_reject", "known"),
    "clean pairs of strangers (LFW protocol), turned away": ("natural", "false_reject", "protocol"),
}


@pytest.mark.parametrize("name", GATE)
def test_the_table_of_the_gate(name):
    attack, kind, of = GATE[name]
    rows = read("lfw", "face_gate")
    rows = rows[(rows["attack"] == attack) & (rows["kind"] == kind)]
    if of is not None:
        rows = rows[rows["people"] == of if isinstance(of, str) else (rows["epsilon"] - of).abs() < 1e-6]
    found = rows.set_index("configuration").loc[[one.split("/")[0] for one in DETECTORS]]
    n, before, *after = table("docs/faces.md", name)[0]

    assert set(found["n"]) == {int(n.replace(",", ""))}
    without = 100 * found["before"]
    assert agree(before, *(without if without.nunique() > 1 else without[:1]))
    for cell, row in zip(after, found.to_dict("records"), strict=True):
        ends = [] if attack == "natural" else [row["after_low"], row["after_high"]]
        assert agree(cell, *(100 * value for value in (row["after"], *ends))), cell


SIMILARITY = {
    "BIM, 8 of 255": ("bim", None),
    "MI-FGSM without early stop, 8 of 255": ("mi-fgsm-confident", None),
    "deep features, 5 of 255": ("deep-features", None),
    "deep features without early stop, 10 of 255": ("deep-features-10-confident", None),
    "aims at the embedding and knows the detector (`verification`), 2 of 255": ("verification", 2 / 255),
    "aims at the embedding and knows the detector, 4 of 255": ("verification", 4 / 255),
    "**follows both embeddings** (`similarity`), 2 of 255": ("similarity", 2 / 255),
    "**follows both embeddings**, 4 of 255": ("similarity", 4 / 255),
    "**follows both embeddings and the detector** (`similarity-and-detector`), 2 of 255": (
        "similarity-and-detector",
        2 / 255,
    ),
    "**follows both embeddings and the detector**, 4 of 255": ("similarity-and-detector", 4 / 255),
    "enrolled people, turned away": ("natural", "known", "false_reject"),
    "strangers, turned away": ("natural", "protocol", "false_reject"),
    "strangers, different people accepted": ("natural", "protocol", "false_accept"),
}
GATES = [("similarity", "pairs"), ("twin and similarity", "pairs"), ("twin and similarity", "validation")]


@pytest.mark.parametrize("name", SIMILARITY)
def test_the_table_of_gates_that_ask_for_the_similarity(name):
    attack, of, *kind = SIMILARITY[name]
    rows = read("lfw", "face_gate_similarity")
    rows = rows[(rows["attack"] == attack) & (rows["kind"] == (kind or ["impersonation"])[0])]
    if of is not None:
        rows = rows[rows["people"] == of if isinstance(of, str) else (rows["epsilon"] - of).abs() < 1e-6]
    found = rows.set_index(["configuration", "calibrated_on"]).loc[GATES]
    n, before, *after = table("docs/faces.md", name)[0]

    assert set(found["n"]) == {int(n.replace(",", ""))}
    assert agree(before, *(100 * found["before"]).round(4).unique())
    for cell, row in zip(after, found.to_dict("records"), strict=True):
        assert agree(cell, *(100 * row[f"after{part}"] for part in ("", "_low", "_high"))), cell


def test_the_table_of_the_readme():
    known, aware, norm, clean = (
        row for row in table("README.md", "attacker does not know the detector: AUC, early / confident attacks")
    )
    columns = [("mnist", READER), ("mnist", TWIN), ("lfw", READER), ("lfw", TWIN)]
    budgets = {"mnist": ("linf", 0.3), "lfw": ("linf", 4 / 255)}

    for place, (run, detector) in enumerate(columns):
        assert agree(known[place], *area(run, detector)), known[place]
        assert agree(aware[place], *lost(run, detector, *budgets[run])), aware[place]
        assert agree(norm[place], *lost(run, detector, "l2", 2.0)), norm[place]
        assert agree(clean[place], flagged(run, detector)), clean[place]


@pytest.mark.parametrize(("run", "n"), [("mnist", 300), ("lfw", 100)])
def test_numbers_of_images(run, n):
    assert set(read(run, "adaptive_summary")["n"]) == {n}
    assert f"{n} {'digits' if run == 'mnist' else 'faces'}" in (PROJECT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("cell", "right"), [("**16 %** (10 - 24)", True), ("17 % (10 - 24)", False), ("16 %", False), (".16", False)]
)
def test_a_wrong_figure_is_found(cell, right):
    assert agree(cell, 16.0, 10.1, 24.4) is right


def test_files_are_small():
    sizes = {path: path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()}

    assert sizes
    assert max(sizes.values()) < 20_000, sizes
