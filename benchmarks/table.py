"""Writes the results: Markdown between two marks of a document, and parquet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pandas as pd

from benchmarks.harness import Row

BEGIN, END = "<!-- measured: {slug} -->", "<!-- end of {slug} -->"
HEAD = "| comparison | median | min - max | goal | | settings and outcome |\n| --- | --- | --- | --- | --- | --- |\n"


def slug_of(machine: str) -> str:
    """A file name for a machine: that of its processor or GPU."""
    return re.sub(r"[^a-z0-9]+", "-", machine.split(",", maxsplit=1)[0].lower()).strip("-")


def markdown(rows: Sequence[Row], machine: str, versions: str, *, quick: bool) -> str:
    """All rows, a table a group."""
    parts = [f"{machine}. {versions}. {date.today().isoformat()}.", ""]
    if quick:
        parts[0] += " **Quick run: sizes too small to conclude from.**"
    for group in dict.fromkeys(row.group for row in rows):
        lines = [_line(row) for row in rows if row.group == group]
        parts += [f"### {group.capitalize()}", "", HEAD + "\n".join(lines), ""]
    return "\n".join(parts)


def _line(row: Row) -> str:
    digits = 0 if row.median >= 100 else 2
    numbers = f"{row.median:.{digits}f}{'' if row.unit == 'x' else ' ' + row.unit}".strip()
    spread = f"{min(row.ratios):.{digits}f} - {max(row.ratios):.{digits}f}" if len(row.ratios) > 1 else ""
    goal = "" if row.goal is None else f"{'<=' if row.at_most else '>='} {row.goal:g}"
    return f"| {row.name} | {numbers} | {spread} | {goal} | {row.verdict} | {row.note} |"


def write_section(path: Path, slug: str, text: str) -> None:
    """Put a text between the marks of a machine, or at the end; all other text of the document stays."""
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


def write_parquet(path: Path, rows: Sequence[Row], machine: str, versions: str) -> None:
    """The same rows with all digits; rows of groups that were not measured this time stay."""
    new = pd.DataFrame([row.record() | {"machine": machine, "versions": versions} for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    new.to_parquet(path, index=False)
