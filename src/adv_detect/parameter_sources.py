"""Parameters as files and command line state them, and what reads them beside the typed blocks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.config import AbstractConfigLoader, MissingConfigException

from adv_detect.params import BLOCKS
from adv_detect.validation.blocks import interpolated_parameters


def all_parameters(loader: AbstractConfigLoader) -> dict[str, Any]:
    """Read the parameters of files and command line together.

    Args:
        loader: Reads the configuration of a run.

    Returns:
        Nested values by name.
    """
    try:
        return dict(loader["parameters"])
    except MissingConfigException:
        return dict(loader.runtime_params or {})


def further_parameters(loader: AbstractConfigLoader, parameters: Mapping[str, Any]) -> set[str]:
    """Find the parameters that are no typed block but are read all the same.

    Args:
        loader: Reads the configuration of a run.
        parameters: All parameters; where each is a block, nothing else is read.

    Returns:
        Dotted names: inputs of pipelines, and what files take from the command line.
    """
    if set(parameters) <= set(BLOCKS):
        return set()
    return interpolated_parameters(Path(str(loader.conf_source))) | _read_by_pipelines()


def own_attacks(loader: AbstractConfigLoader) -> dict[str, Any] | None:
    """Read what the environment and the command line say of attacks, without the base configuration.

    Args:
        loader: Reads the configuration of a run.

    Returns:
        ``adversarial_generation.attacks``, nested; None where the files do not lie in a folder.
    """
    import yaml

    environment = loader.env or getattr(loader, "default_run_env", "") or ""
    folder = Path(str(loader.conf_source)) / environment
    if not Path(str(loader.conf_source)).is_dir():
        return None
    stated: dict[str, Any] = {}
    for path in sorted(folder.rglob("parameters*.y*ml")):
        stated |= _attacks_in(yaml.safe_load(path.read_text(encoding="utf-8")), stated)
    return stated | _attacks_in(loader.runtime_params, stated)


def _attacks_in(parameters: Any, stated: Mapping[str, Any]) -> dict[str, Any]:
    block = parameters.get("adversarial_generation") if isinstance(parameters, Mapping) else None
    attacks = block.get("attacks") if isinstance(block, Mapping) else None
    found = attacks if isinstance(attacks, Mapping) else {}
    named = {str(name): value for name, value in found.items() if isinstance(value, Mapping)}
    return {name: {**(stated.get(name) or {}), **value} for name, value in named.items()}


def _read_by_pipelines() -> set[str]:
    from adv_detect.pipelines import create, pipeline_names

    inputs = {name for one in pipeline_names() for name in create(one).all_inputs()}
    return {name.removeprefix("params:") for name in inputs if name.startswith("params:")} - set(BLOCKS)
