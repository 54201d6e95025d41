"""Sections and blocks of a report. Any pipeline may add sections of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import pandas as pd

SCORE = "score"
"""Format of numbers in [0, 1] as the paper writes them: ``.987``."""


def prose(text: str) -> str:
    """Join the lines of a text that is written over several."""
    return " ".join(text.split())


@dataclass(frozen=True)
class Text:
    """A paragraph; ``**bold**`` and ```code``` are understood, everything else is shown as written."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of short texts, written like `Text`."""

    items: Sequence[str]


@dataclass(frozen=True)
class Note:
    """A text set apart: what to know, what is good, what to be careful about."""

    text: str
    tone: Literal["info", "good", "caution"] = "info"


@dataclass(frozen=True)
class Card:
    """One number in large type.

    Attributes:
        value: The number, written out.
        label: What it is.
        detail: Its interval, its n, its condition.
    """

    value: str
    label: str
    detail: str = ""


@dataclass(frozen=True)
class Cards:
    """Numbers side by side."""

    cards: Sequence[Card]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        frame: The cells; the index is not shown.
        caption: What it shows, with units.
        formats: Format of a column's numbers, such as ``.1%`` or ``,d``, or `SCORE`; otherwise three significant
            digits.
        headers: Title of a column where it differs from its name.
        mark_best: Columns whose largest number is set in bold, controls and published rows left out.
        row_header: Whether the first column names the rows.
    """

    frame: pd.DataFrame
    caption: str = ""
    formats: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    mark_best: Sequence[str] = ()
    row_header: bool = True


@dataclass(frozen=True)
class Figure:
    """A figure, embedded in the file.

    Attributes:
        figure: The content of a file of the format.
        caption: What it shows and how to read it.
        alt: What it shows, for readers who cannot see it.
        file_format: ``png`` or ``svg``.
    """

    figure: bytes
    caption: str = ""
    alt: str = ""
    file_format: Literal["svg", "png"] = "png"


@dataclass(frozen=True)
class Facts:
    """Names and values, such as the parameters of a run; nested mappings are flattened to dotted names."""

    values: Mapping[str, object]
    caption: str = ""


@dataclass(frozen=True)
class Fold:
    """Blocks behind a heading that the reader opens."""

    title: str
    blocks: Sequence[Block]


Block: TypeAlias = Text | Bullets | Note | Cards | Table | Figure | Facts | Fold


@dataclass(frozen=True)
class Section:
    """A section of the report, listed in its contents.

    Attributes:
        title: Heading; its place in the file is derived from it.
        blocks: What it holds, in order.
    """

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        title: Heading of the page.
        subtitle: What was run on what, in one line.
        sections: The content, in order.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
