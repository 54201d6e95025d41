"""The pipelines of the project: a package each, with its wiring, its nodes and its checks."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline

CHECKS = "checks"
"""The module of a pipeline whose function ``check`` says what a run of it needs; absent where that is files alone."""


@cache
def pipeline_names() -> tuple[str, ...]:
    """List the pipelines, whether or not Kedro has loaded them."""
    return tuple(module.name for module in pkgutil.iter_modules(__path__))


def create(name: str) -> Pipeline:
    """Create a pipeline, which need not be one that Kedro was asked to run."""
    pipeline: Pipeline = import_module(f"{__name__}.{name}").create_pipeline()
    return pipeline


def checks_of(name: str) -> ModuleType | None:
    """Import the checks of a pipeline."""
    module = f"{__name__}.{name}.{CHECKS}"
    return import_module(module) if name in pipeline_names() and find_spec(module) is not None else None
