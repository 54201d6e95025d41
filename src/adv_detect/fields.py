"""Kinds of values that parameter blocks hold, and the base of all blocks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fractions import Fraction
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

LARGEST = 2**31 - 1
"""Of seeds and counts: what every library here takes."""
LONGEST_NAME = 64
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
NAME_WORDS = f"at most {LONGEST_NAME} letters, digits and inner '.', '_' or '-'"
LARGEST_RATE = 1.0
"""Of learning rates and weight decays; beyond it weights become infinite instead of better."""

_Item = TypeVar("_Item")


def parse_fraction(value: object) -> object:
    """Turn ``"8/255"`` into a float; other values pass through.

    Raises:
        ValueError: A text with a slash is no fraction.
    """
    if isinstance(value, str) and "/" in value:
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError) as exc:
            raise ValueError(f"expected a number or a fraction such as '8/255', got {value!r}") from exc
    return value


def _finite(value: Any) -> Any:
    """Refuse NaN and infinity, also as texts, at any depth of free-form arguments."""
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finite(one) for one in value)
    number = value if isinstance(value, float) else _number_of(value) if isinstance(value, str) else None
    if number is not None and not math.isfinite(number):
        raise ValueError(f"expected finite numbers, got {value!r}")
    return value


def _number_of(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _each_once(values: tuple[_Item, ...]) -> tuple[_Item, ...]:
    twice = sorted({str(one) for one in values if values.count(one) > 1})
    if twice:
        raise ValueError(f"expected each once, got {', '.join(twice)} more than once")
    return values


def check_name(value: str) -> str:
    """Refuse a name that cannot be part of a file name and of a key on every system.

    Args:
        value: Name of an attack, a detector configuration or a registered model.

    Returns:
        The name.

    Raises:
        ValueError: It holds other characters, or is empty or too long.
    """
    if len(value) > LONGEST_NAME or not NAME.fullmatch(value):
        shown = value if len(value) <= LONGEST_NAME else f"{value[:LONGEST_NAME]}... ({len(value)} characters)"
        raise ValueError(f"expected a name of {NAME_WORDS}, got {shown!r}")
    return value


def check_names(names: Iterable[str], *, reserved: tuple[str, ...]) -> None:
    """Refuse names that cannot be files, that other rows of the tables have, or that differ in case alone.

    Args:
        names: Names of one kind of thing.
        reserved: Names that mean something else.

    Raises:
        ValueError: A name is not usable.
    """
    seen: dict[str, str] = {}
    for name in names:
        check_name(name)
        if name.lower() in reserved:
            raise ValueError(f"expected a name that is none of {list(reserved)}, got {name!r}")
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise ValueError(f"expected names that differ in more than case, got {other!r} and {name!r}")


def _takes_flags(annotation: Any) -> bool:
    """Return whether true and false are among the values that a field takes."""
    parts = get_args(annotation)
    return annotation in (bool, Any) or any(_takes_flags(part) for part in parts)


def _has_flag(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_flag(one) for one in value.values())
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(_has_flag(one) for one in value))


Number = Annotated[float, BeforeValidator(parse_fraction)]
PositiveNumber = Annotated[float, Field(gt=0), BeforeValidator(parse_fraction)]
LearningRate = Annotated[float, Field(gt=0, le=LARGEST_RATE), BeforeValidator(parse_fraction)]
Decay = Annotated[float, Field(ge=0, le=LARGEST_RATE)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, le=LARGEST)]
Arguments = Annotated[dict[str, Any], AfterValidator(_finite)]
Once = AfterValidator(_each_once)
Names = Annotated[tuple[str, ...], Once]


class Block(BaseModel):
    """Base of all parameter blocks: immutable, no unknown keys, finite numbers, no true or false for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _flags_are_no_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        if not _holds_blocks(field.annotation) and not _takes_flags(field.annotation) and _has_flag(value):
            raise ValueError(f"expected no true or false here, got {value!r}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, values: Any) -> Any:
        """Name the valid keys beside one that is not, which pydantic does not."""
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                close = get_close_matches(str(key), list(cls.model_fields), n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise ValueError(f"expected keys of [{', '.join(cls.model_fields)}], got {key!r}{hint}")
        return values


def _holds_blocks(annotation: Any) -> bool:
    """Return whether the values of a field are blocks, which check themselves."""
    inner = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return inner or any(_holds_blocks(part) for part in get_args(annotation))
