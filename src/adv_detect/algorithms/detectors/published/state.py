"""Fitted state of objects of other libraries, as named tensors and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adv_detect.errors import ConfigurationError

SEPARATOR = "|"
"""Between kind, attribute and place in a name: names of buffers hold no dot."""


def captured_state(made: object, name: str) -> dict[str, Tensor]:
    """Read the attributes of a fitted object that are numbers, tensors, or hold tensors.

    Args:
        made: The object.
        name: What it is called, for errors.

    Returns:
        Tensors by ``<kind>|<attribute>`` or ``<kind>|<attribute>|<place>``, on the CPU.

    Raises:
        ConfigurationError: An attribute is of another kind, and what was learned cannot be told from it.
    """
    return {key: value for attribute, one in vars(made).items() for key, value in _parts(attribute, one, name)}


def with_state(made: object, state: Mapping[str, Tensor]) -> None:
    """Set the attributes of an object to captured ones.

    Args:
        made: An object that was constructed with the same arguments.
        state: As from :func:`captured_state`.
    """
    lists: dict[str, dict[int, Tensor]] = {}
    entries: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        kind, attribute, *place = key.split(SEPARATOR)
        if kind == "list":
            lists.setdefault(attribute, {})[int(place[0])] = value
        elif kind == "entries":
            entries.setdefault(attribute, {})[place[0].replace("/", ".")] = value
        elif kind == "neighbours":
            getattr(made, attribute).fit(value.cpu().numpy())
        else:
            setattr(made, attribute, value.item() if kind == "number" else value)
    for attribute, parts in lists.items():
        setattr(made, attribute, [parts[place] for place in sorted(parts)])
    for attribute, found in entries.items():
        _fill(getattr(made, attribute), found)


def _parts(attribute: str, value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Give the tensors of one attribute; nothing where it follows from the constructor."""
    if isinstance(value, nn.Module):
        for place, part in value.state_dict().items():
            yield SEPARATOR.join(("entries", attribute, place.replace(".", "/"))), _copied(part)
    elif isinstance(value, Tensor):
        yield f"tensor{SEPARATOR}{attribute}", _copied(value)
    elif isinstance(value, bool | int | float | np.number):
        yield (
            f"number{SEPARATOR}{attribute}",
            torch.tensor(value, dtype=None if isinstance(value, int) else torch.float64),
        )
    elif isinstance(value, list | tuple) and value and all(isinstance(one, Tensor) for one in value):
        for number, one in enumerate(value):
            yield SEPARATOR.join(("list", attribute, str(number))), _copied(one)
    elif hasattr(value, "kneighbors"):
        if hasattr(value, "_fit_X"):  # it has none before it is fitted
            yield f"neighbours{SEPARATOR}{attribute}", torch.from_numpy(np.array(value._fit_X))
    elif not _is_constructed(value):
        raise ConfigurationError(
            f"{name}: its state cannot be stored, attribute {attribute!r} is of type {type(value).__name__}; only "
            "numbers, tensors, lists of tensors, modules and scikit-learn's nearest neighbours can"
        )


def _is_constructed(value: Any) -> bool:
    """Tell whether an attribute holds nothing learned: none, texts, functions, and lists of numbers or modules."""
    if isinstance(value, list | tuple):
        return all(_is_constructed(one) or isinstance(one, bool | int | float | nn.Module) for one in value)
    return value is None or callable(value) or isinstance(value, str | torch.device | torch.dtype)


def _fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    if isinstance(module, nn.ParameterDict):
        module.clear()
        for name, value in state.items():
            module[name] = nn.Parameter(value, requires_grad=False)
    else:
        module.load_state_dict(dict(state), assign=True)


def _copied(value: Tensor) -> Tensor:
    return value.detach().cpu().clone().contiguous()
