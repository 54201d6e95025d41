"""Keeps the results: parquet with all digits, Markdown between two markers of a document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pandas as pd

from benchmarks.measure import Row

BEGIN, END = "<!-- measured: {slug} -->", "<!-- end of {slug} -->"
HEAD = "| comparison | median | min - max | goal | | settings and outcome |\n| --- | --- | --- | --- | --- | --- |"


def slug_of(machine: str) -> str:
    """A file name for a machine: that of its GPU or processor."""
    return re.sub(r"[^a-z0-9]+", "-", machine.split(",", maxsplit=1)[0].lower()).strip("-")


def frame_of(rows: Sequence[Row], *, machine: str, versions: str, quick: bool) -> pd.DataFrame:
    """Rows with where and when they were measured."""
    when = date.today().isoformat()
    context = {"machine": machine, "versions": versions, "date": when, "quick": quick}
    return pd.DataFrame([row.record() | context for row in rows])


def merge(path: Path, new: pd.DataFrame) -> pd.DataFrame:
    """Put new rows in the place of the old ones of their groups; other groups in the file stay."""
    if not path.is_file():
        return new
    old = pd.read_parquet(path)
    kept = old[~old["group"].isin(set(new["group"]))]
    if kept.empty:
        return new
    order = list(dict.fromkeys([*old["group"], *new["group"]]))
    both = pd.concat([kept, new], ignore_index=True)
    return both.sort_values("group", key=lambda column: column.map(order.index), kind="stable", ignore_index=True)


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)


def markdown(frame: pd.DataFrame) -> str:
    """A table a group, under the machine's name."""
    latest = frame.iloc[-1]
    parts = [f"## {latest['machine'].split(',')[0]}", "", f"{_where(latest)}", ""]
    if bool(latest["quick"]):
        parts += ["**Quick run: sizes too small to conclude from.**", ""]
    for group, rows in frame.groupby("group", sort=False):
        parts += [f"### {str(group).capitalize()}", ""]
        if _where(rows.iloc[0]) != _where(latest):
            parts += [_where(rows.iloc[0]), ""]
        parts += [HEAD, *(_line(row) for _, row in rows.iterrows()), ""]
    return "\n".join(parts)


def _where(row: pd.Series) -> str:
    return f"{row['machine']}. {row['versions']}. {row['date']}."


def _line(row: pd.Series) -> str:
    unit = "" if row["unit"] == "x" else f" {row['unit']}"
    middle = f"{_number(row['median'])}{unit}".rstrip() if row["rounds"] else ""
    spread = f"{_number(row['min'])} - {_number(row['max'])}" if row["rounds"] > 1 else ""
    goal = "" if pd.isna(row["goal"]) else f"{'<=' if row['at_most'] else '>='} {row['goal']:g}"
    return f"| {row['comparison']} | {middle} | {spread} | {goal} | {row['verdict']} | {row['note']} |"


def _number(value: float) -> str:
    return f"{value:.{0 if value >= 100 else 2}f}"


def write_section(path: Path, slug: str, text: str) -> None:
    """Put a text between the markers of a machine, or at the end; all other text of the document stays."""
    begin, end = BEGIN.format(slug=slug), END.format(slug=slug)
    old = path.read_text(encoding="utf-8") if path.is_file() else "# Benchmarks\n"
    section = f"{begin}\n{text.strip()}\n{end}"
    if begin in old and end in old:
        before, rest = old.split(begin, 1)
        new = before + section + rest.split(end, 1)[1]
    else:
        new = f"{old.rstrip()}\n\n{section}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(new, encoding="utf-8")
