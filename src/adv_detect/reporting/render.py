"""One self-contained HTML file from a report: no scripts, no fonts, nothing fetched."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from adv_detect.errors import DataError
from adv_detect.measures.reference_tables import MISSING, format_score
from adv_detect.plots.style import FORMATS, RESOLUTION
from adv_detect.reporting.blocks import SCORE, Figure, Report, Table

TEMPLATE = "report.html.j2"
STYLESHEET = "report.css"
ASIDE_PREFIXES = {"control:": "control", "published:": "published"}
CSS_PIXELS_PER_INCH = 96
PNG_WIDTH = slice(16, 20)  # bytes of the header that hold the width in pixels
LEADING_NUMBER = re.compile(r"^-?\d*\.?\d+")


@dataclass(frozen=True)
class Cell:
    """One cell of a table as it is drawn."""

    text: str
    numeric: bool
    best: bool


def render_report(report: Report) -> str:
    """Write a report as one HTML page.

    Args:
        report: Title and sections.

    Returns:
        The page; figures stand in it as data, and a policy in its head forbids the browser to fetch anything.

    Raises:
        DataError: Two sections have the same title, or there is none.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("adv_detect", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "rich": rich_text,
        "image": image_source,
        "width": image_width,
        "cells": table_rows,
        "flat": flatten,
    }
    environment.tests["numeric_column"] = lambda column, table: _is_numeric(table.frame[column])
    css = environment.loader.get_source(environment, STYLESHEET)[0] if environment.loader else ""
    anchors = _anchors(report)
    numbers = {"table": count(1), "figure": count(1)}
    environment.globals |= {"next_number": lambda name: next(numbers[name]), "kind": lambda block: type(block).__name__}
    return environment.get_template(TEMPLATE).render(report=report, css=Markup(css), anchors=anchors)


def _anchors(report: Report) -> list[str]:
    anchors = [re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") for section in report.sections]
    if not anchors or len(set(anchors)) < len(anchors):
        titles = [section.title for section in report.sections]
        raise DataError(f"report: expected at least one section and no title twice, got {titles}")
    return anchors


def rich_text(text: str) -> Markup:
    """Escape a text and turn ``**bold**`` and ```code``` into markup."""
    safe = str(escape(text))
    safe = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe)
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", safe))


def image_source(block: Figure) -> str:
    """Return a figure as a ``data:`` address."""
    return f"data:{FORMATS[block.file_format]};base64,{base64.b64encode(block.figure).decode('ascii')}"


def image_width(block: Figure) -> int | None:
    """Return the width of a PNG on the page in CSS pixels, at the size in inches at which it was drawn."""
    if block.file_format != "png":
        return None
    return round(int.from_bytes(block.figure[PNG_WIDTH]) * CSS_PIXELS_PER_INCH / RESOLUTION)


def flatten(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flatten nested mappings to pairs of dotted name and written value."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        elif isinstance(value, list | tuple):
            yield name, ", ".join(map(str, value)) or MISSING
        else:
            yield name, MISSING if value is None else str(value)


def table_rows(table: Table) -> list[tuple[str, list[Cell]]]:
    """Write a table's rows: per row its kind (``control``, ``published`` or empty) and its cells."""
    frame = table.frame
    kinds = [_row_kind(str(first)) for first in frame.iloc[:, 0]]
    columns = []
    for name in frame.columns:
        texts = [write(value, table.formats.get(str(name))) for value in frame[name]]
        best = _best(texts, kinds) if name in table.mark_best else None
        numeric = _is_numeric(frame[name])
        columns.append([Cell(text, numeric, index in (best or ())) for index, text in enumerate(texts)])
    return [(kind, list(cells)) for kind, cells in zip(kinds, zip(*columns, strict=True), strict=True)]


def _row_kind(label: str) -> str:
    return next((kind for prefix, kind in ASIDE_PREFIXES.items() if label.startswith(prefix)), "")


def _best(texts: list[str], kinds: list[str]) -> set[int]:
    """Rows that share the largest leading number; none where every row has it."""
    numbers = {
        index: float(found.group())
        for index, (text, kind) in enumerate(zip(texts, kinds, strict=True))
        if not kind and (found := LEADING_NUMBER.match(text))
    }
    top = {index for index, number in numbers.items() if number == max(numbers.values())}
    return top if len(top) < len(numbers) else set()


def _is_numeric(column: pd.Series[Any]) -> bool:
    """Tell whether a column is set flush right: numbers, or texts that all begin with one."""
    if pd.api.types.is_numeric_dtype(column):
        return True
    texts = [text for value in column if (text := str(value)) != MISSING]
    return bool(texts) and all(LEADING_NUMBER.match(text) for text in texts)


def write(value: object, number_format: str | None = None) -> str:
    """Write one cell: numbers by format, three significant digits otherwise; NaN and None as a dash."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return MISSING
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return format(int(value), number_format or ",d")
    if isinstance(value, Real) and number_format == SCORE:
        return format_score(float(value))
    if isinstance(value, Real):
        return format(float(value), number_format or ".3g")
    return str(value)
