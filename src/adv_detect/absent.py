"""The value of a dataset that a configuration does not ask for, and nodes that pass it on."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Absent:
    """Stands in a dataset for what is not asked for; :data:`ABSENT` is the one there is."""

    def __repr__(self) -> str:
        """Return its name."""
        return "ABSENT"


ABSENT = Absent()


def pass_on_absent(function: Callable[P, T]) -> Callable[P, T | Absent]:
    """Let a function with one result return :data:`ABSENT` where one of its arguments is absent.

    Args:
        function: What is called with arguments that are all there.

    Returns:
        A function of the same signature.
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T | Absent:
        given: tuple[Any, ...] = (*args, *kwargs.values())
        return ABSENT if any(isinstance(one, Absent) for one in given) else function(*args, **kwargs)

    return called
