"""Parts of a report as JSON values and back: figures as base64, tables by column, no code."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from adv_detect.errors import DataError
from adv_detect.reporting.blocks import (
    Block,
    Bullets,
    Card,
    Cards,
    Facts,
    Figure,
    Fold,
    Note,
    Report,
    Section,
    Table,
    Text,
)
from adv_detect.reporting.parts import ReportPart
from adv_detect.reporting.render import flatten

KIND = "kind"


def part_as_json(part: ReportPart) -> dict[str, Any]:
    """Describe a part.

    Args:
        part: The part.

    Returns:
        JSON-able values; facts are flattened and written out, as the page shows them.
    """
    report = part.report
    sections = [{"title": section.title, "blocks": _blocks_out(section.blocks)} for section in report.sections]
    tables = {name: _frame_out(table) for name, table in part.tables.items()}
    heading = {"title": report.title, "subtitle": report.subtitle, "made_from": part.made_from}
    return heading | {"sections": sections, "tables": tables}


def part_from_json(content: Mapping[str, Any]) -> ReportPart:
    """Build a part from what :func:`part_as_json` returned.

    Args:
        content: The values.

    Returns:
        The part; it renders to the same page.

    Raises:
        DataError: The values do not describe a part.
    """
    try:
        sections = [Section(section["title"], _blocks_in(section["blocks"])) for section in content["sections"]]
        report = Report(content["title"], content["subtitle"], sections)
        tables = {name: _frame_in(columns) for name, columns in content.get("tables", {}).items()}
        return ReportPart(report, content["made_from"], tables)
    except (KeyError, TypeError, ValueError) as exc:
        raise DataError(f"expected the JSON of a part of the report, got one with {type(exc).__name__}: {exc}") from exc


def _blocks_out(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    return [{KIND: type(block).__name__, **_fields(block)} for block in blocks]


def _blocks_in(values: Sequence[Mapping[str, Any]]) -> list[Block]:
    return [_block({name: field for name, field in value.items() if name != KIND}, value[KIND]) for value in values]


def _fields(block: Block) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    match block:
        case Bullets():
            changed = {"items": list(block.items)}
        case Cards():
            changed = {"cards": [vars(card) for card in block.cards]}
        case Fold():
            changed = {"blocks": _blocks_out(block.blocks)}
        case Facts():
            changed = {"values": dict(flatten(block.values))}
        case Table():
            changed = {name: dict(getattr(block, name)) for name in ("formats", "headers")}
            changed |= {"mark_best": list(block.mark_best), "frame": _frame_out(block.frame)}
        case Figure():
            changed = {"figure": base64.b64encode(block.figure).decode("ascii")}
    return {**vars(block), **changed}


def _block(fields: dict[str, Any], kind: str) -> Block:
    match kind:
        case "Cards":
            return Cards([Card(**card) for card in fields["cards"]])
        case "Fold":
            return Fold(fields["title"], _blocks_in(fields["blocks"]))
        case "Table":
            return Table(**fields | {"frame": _frame_in(fields["frame"])})
        case "Figure":
            return Figure(**fields | {"figure": base64.b64decode(fields["figure"], validate=True)})
    simple: dict[str, type[Text | Bullets | Note | Facts]] = {"Text": Text, "Bullets": Bullets, "Note": Note}
    return (simple | {"Facts": Facts})[kind](**fields)


def _frame_out(frame: pd.DataFrame) -> list[list[Any]]:
    """Name, dtype and cells of each column; dtypes that JSON cannot tell apart become objects."""
    return [[str(name), _dtype(frame[name]), [_cell(cell) for cell in frame[name]]] for name in frame.columns]


def _frame_in(columns: Sequence[tuple[str, str, list[Any]]]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(cells, dtype=dtype) for name, dtype, cells in columns})


def _dtype(column: pd.Series[Any]) -> str:
    return str(column.dtype) if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf" else "object"


def _cell(value: object) -> object:
    plain = value.item() if isinstance(value, np.generic) else value
    return plain if plain is None or isinstance(plain, bool | int | float | str) else str(plain)
