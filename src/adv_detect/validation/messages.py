"""Errors of typed blocks as one sentence per value: its key, what was expected, what came."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

LONGEST_VALUE = 80
EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a string",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
}
"""Words for a kind of value, by pydantic's name of the error."""
STARTS_WITH_KEY = re.compile(r"[a-z_]+(\.[a-z_]+)*: ")
"""A message about a field of the block itself: its key is joined to that of the block."""


def sentences(block: str, raw: Any, error: ValidationError) -> Iterator[str]:
    """Say what is wrong with a block.

    Args:
        block: Its name.
        raw: What the configuration holds.
        error: What its type says of that.

    Yields:
        One sentence per value.
    """
    found: dict[str, list[ErrorDetails]] = {}
    for one in error.errors(include_url=False):
        found.setdefault(".".join([block, *_path(raw, one["loc"])]), []).append(one)
    for key, details in found.items():
        if not any(
            other.startswith(f"{key}.") for other in found
        ):  # a list lacks its faulty values: no fault of its own
            yield _sentence(key, details)


def _path(raw: Any, location: Sequence[int | str]) -> Iterator[str]:
    """Keys that lead to a value; names of the alternatives of a union, which pydantic adds, are left out."""
    value: Any = raw
    for number, part in enumerate(location):
        missing = number == len(location) - 1 and isinstance(value, dict) and str(part).isidentifier()
        if isinstance(value, dict):
            inside = part in value
        else:
            inside = isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
        if inside:
            value = value[part]
        if inside or missing:
            yield str(part)


def _sentence(key: str, details: list[ErrorDetails]) -> str:
    own = next((one for one in details if one["type"] in ("value_error", "missing")), None)
    if own is None:
        wanted = " or ".join(dict.fromkeys(_wanted(one) for one in details))
        return f"{key}: expected {wanted}, got {_shown(details[0]['input'])}"
    if own["type"] == "missing":
        return f"{key}: expected a value, got none"
    text = own["msg"].removeprefix("Value error, ")
    return f"{key}.{text}" if STARTS_WITH_KEY.match(text) else f"{key}: {text}"


def _wanted(detail: ErrorDetails) -> str:
    if detail["type"] == "too_short":
        least = detail["ctx"]["min_length"]
        return f"at least {least} value{'s' if least > 1 else ''}"
    found = EXPECTED.get(detail["type"])
    return found or detail["msg"].removeprefix("Input should be ")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
