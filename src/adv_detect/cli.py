"""The command ``kedro run`` of this project: ``--params`` change single values of a run file, and keep the others."""

from __future__ import annotations

import copy
from typing import Any

import click
from click.core import ParameterSource
from kedro.framework.cli.project import run
from omegaconf import OmegaConf

PARAMS, CONFIG = "params", "config"


def merge_params(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Put parameters of the command line over those of the run file, of which Kedro would drop all.

    Args:
        ctx: Of the command; its defaults are those of the run file.
        param: The option ``--params``.
        value: What was given.

    Returns:
        Both, nested, by name.
    """
    given = _SPLIT(ctx, param, value)
    filed = (ctx.default_map or {}).get(PARAMS)
    if not filed or ctx.get_parameter_source(PARAMS) is not ParameterSource.COMMANDLINE:
        return given
    return OmegaConf.to_container(OmegaConf.merge(_SPLIT(ctx, param, filed), given))


def _merging() -> click.Command:
    """Copy Kedro's command, with the run file read before the parameters, in whatever order both are given."""
    command = copy.copy(run)
    command.params = [copy.copy(one) for one in run.params]
    options = {one.name: one for one in command.params}
    options[CONFIG].is_eager = True
    options[PARAMS].callback = merge_params
    return command


_SPLIT: Any = next(one.callback for one in run.params if one.name == PARAMS)
cli = click.Group(name="adv_detect", commands={"run": _merging()})
