"""The value of a dataset that a configuration does not ask for, and nodes that pass it on."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import ParamSpec, TypeVar

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

    Arguments whose annotation names ``Absent`` do not count: the function knows what to do without them.

    Args:
        function: What is called with the other arguments all there.

    Returns:
        A function of the same signature.
    """
    parameters = signature(function).parameters.values()
    optional = {one.name for one in parameters if Absent.__name__ in str(one.annotation)}

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T | Absent:
        given = signature(function).bind(*args, **kwargs).arguments
        missing = (name for name, one in given.items() if isinstance(one, Absent))
        return ABSENT if any(name not in optional for name in missing) else function(*args, **kwargs)

    return called
