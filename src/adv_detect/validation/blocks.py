"""All parameter blocks of a configuration: their names and each value in them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adv_detect.errors import ConfigurationError
from adv_detect.params import BLOCKS
from adv_detect.validation.messages import sentences

INTERPOLATED = re.compile(r"\$\{runtime_params:\s*([\w.-]+)")


def check_parameters(parameters: Mapping[str, Any], *, further: Collection[str] = ()) -> None:
    """Check the names of all blocks, and every value in them, before any pipeline is loaded.

    Args:
        parameters: What the parameter files and the command line say together.
        further: Dotted names that something else reads: parameters of other pipelines, or of the command line alone.

    Raises:
        ConfigurationError: One sentence per name or value that cannot work.
    """
    faults = [*_unknown_names(parameters, further), *_bad_values(parameters)]
    if faults:
        raise ConfigurationError("; ".join(faults))


def interpolated_parameters(folder: Path) -> set[str]:
    """Find the parameters that configuration files take from the command line by ``${runtime_params:...}``.

    Args:
        folder: Folder of the configuration.

    Returns:
        Their dotted names.
    """
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.rglob("*.y*ml")))
    return {name for text in texts for name in INTERPOLATED.findall(text)}


def _unknown_names(parameters: Mapping[str, Any], further: Collection[str]) -> Iterator[str]:
    known = [*BLOCKS, *sorted(further)]
    tops = {one.split(".")[0] for one in further}
    for name, value in parameters.items():
        if name in BLOCKS or str(name).startswith("_"):  # OmegaConf keeps names with _ for values that others refer to
            continue
        for leaf in _leaves(str(name), value) if name in tops else (str(name),):
            if not any(_covers(one, leaf) for one in further):
                close = get_close_matches(leaf, known, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                yield f"parameters: expected names of [{', '.join(known)}], got {leaf!r}{hint}"


def _leaves(name: str, value: Any) -> Iterator[str]:
    """Dotted names of all values in a nested dictionary."""
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            yield from _leaves(f"{name}.{key}", one)
    else:
        yield name


def _covers(known: str, leaf: str) -> bool:
    return leaf == known or leaf.startswith(f"{known}.")


def _bad_values(parameters: Mapping[str, Any]) -> Iterator[str]:
    for name, kind in BLOCKS.items():
        if name not in parameters:
            continue
        try:
            kind.model_validate(parameters[name])
        except ValidationError as exc:
            yield from sentences(name, parameters[name], exc)
