"""Checks of the arguments that a configuration gives to an attack, before anything runs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from difflib import get_close_matches
from fractions import Fraction
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ValidationError

from adv_detect.errors import ConfigurationError, refuse_non_finite

POSITIVE = ("steps", "binary_search_steps", "stepsize", "abs_stepsize", "rel_stepsize", "initial_const")
NOT_NEGATIVE = ("confidence", "momentum", "tolerance")
NOT_FINITE = ("nan", ".nan", "inf", "+inf", "-inf", ".inf", "-.inf", "infinity", "-infinity")
EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


def parse_numbers(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Turn texts that are numbers into numbers: ``"2/255"``, ``"1e-2"``, ``"10"``, and ``"nan"``, to be refused.

    Args:
        arguments: Arguments as a configuration file gives them; not changed.

    Returns:
        The same names with numbers where the text was one.
    """
    return {name: _parse(value) if isinstance(value, str) else value for name, value in arguments.items()}


def check_arguments(key: str, arguments: Mapping[str, Any], make: type) -> None:
    """Check names, types and signs of constructor arguments, and that numbers are finite.

    Args:
        key: Configuration key of the arguments, for the messages.
        arguments: Parsed arguments.
        make: Class whose constructor takes them.

    Raises:
        ConfigurationError: A name is unknown or missing, or a value has the wrong type or sign or is not finite.
    """
    parameters = _parameters(make)
    for name in arguments:
        if name not in parameters:
            raise _unknown_argument(key, name, parameters)
    _check_missing(key, arguments, parameters)
    hints = get_type_hints(make.__init__)  # type: ignore[misc]
    for name, value in arguments.items():
        refuse_non_finite(f"{key}.{name}", value)
        _check_type(f"{key}.{name}", value, hints.get(name, Any))
        _check_sign(key, name, value)


def argument_names(make: type) -> tuple[str, ...]:
    """Return the names that a constructor takes, in its order."""
    return tuple(_parameters(make))


def _parameters(make: type) -> dict[str, inspect.Parameter]:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    given = inspect.signature(make).parameters
    return {name: one for name, one in given.items() if one.kind not in variadic}


def refused_arguments(owner: str, model: type[BaseModel], error: ValidationError) -> ConfigurationError:
    """Write the error of arguments that a block refuses.

    Args:
        owner: What takes the arguments.
        model: The block.
        error: What it found.
    """
    faults = "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}, got {one['input']!r}" for one in error.errors()
    )
    valid = ", ".join(sorted(model.model_fields))
    return ConfigurationError(f"arguments of {owner}: {faults}; valid names: [{valid}]")


def _unknown_argument(key: str, name: str, valid: Mapping[str, Any]) -> ConfigurationError:
    close = get_close_matches(name, list(valid), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return ConfigurationError(f"{key}: expected names of [{', '.join(valid)}], got {name!r}{hint}")


def _check_missing(key: str, arguments: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    needed = [name for name, one in parameters.items() if one.default is inspect.Parameter.empty]
    missing = [name for name in needed if name not in arguments]
    if missing:
        raise ConfigurationError(
            f"{key}: expected values for {missing}, got {sorted(arguments)}; valid names: [{', '.join(parameters)}]"
        )


def _check_type(key: str, value: object, hint: Any) -> None:
    kinds = {one for one in (get_args(hint) or (hint,)) if isinstance(one, type)}
    simple = kinds & set(EXPECTED)
    if not simple or kinds - simple - {type(None)} or (value is None and type(None) in kinds):
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = isinstance(value, tuple(simple)) and (bool in simple or not isinstance(value, bool))
    if not fits and not (float in simple and number):
        wanted = " or ".join(EXPECTED[one] for one in EXPECTED if one in simple)
        raise ConfigurationError(f"{key}: expected {wanted}, got {value!r}")


def _check_sign(key: str, name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if name in POSITIVE and value <= 0:
        raise ConfigurationError(f"{key}.{name}: expected more than 0, got {value!r}")
    if name in NOT_NEGATIVE and value < 0:
        raise ConfigurationError(f"{key}.{name}: expected 0 or more, got {value!r}")


def _parse(text: str) -> Any:
    for kind in (int, float, _fraction):
        try:
            number = kind(text)
        except (ValueError, ZeroDivisionError):
            continue
        return number if math.isfinite(number) or text.strip().lower() in NOT_FINITE else text
    return text


def _fraction(text: str) -> float:
    return float(Fraction(text.replace(" ", "")))
