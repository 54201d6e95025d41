"""Checks of the names that a command gives: pipelines, nodes, tags, datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from adv_detect.errors import ConfigurationError, unknown_choice
from adv_detect.pipelines import pipeline_names

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline

DEFAULT = "__default__"


def check_pipelines(names: Iterable[str]) -> None:
    """Refuse pipelines that do not exist.

    Args:
        names: Names that the command gives.

    Raises:
        ConfigurationError: One of them is unknown; the message lists the pipelines.
    """
    valid = {DEFAULT, *pipeline_names()}
    for name in sorted(set(names) - valid):
        raise unknown_choice("--pipelines", name, valid)


def check_selection(pipeline: Pipeline, selection: Mapping[str, Any]) -> None:
    """Refuse a selection of nodes that names something unknown, or that leaves nothing to run.

    Args:
        pipeline: What is selected from.
        selection: Names by argument of Kedro's session, such as ``node_names``; other arguments are left alone.

    Raises:
        ConfigurationError: A name is unknown, or no node meets all conditions.
    """
    given = {key: [*selection[key]] for key in _OPTIONS if selection.get(key)}
    for key, names in given.items():
        option, valid_names = _OPTIONS[key]
        valid = valid_names(pipeline)
        for name in names:
            if name not in valid and not name.startswith("params:"):
                raise unknown_choice(option, name, valid)
    if given:
        _check_something_is_left(pipeline, given)


def _check_something_is_left(pipeline: Pipeline, given: Mapping[str, list[str]]) -> None:
    arguments = {("node_namespaces" if key == "namespaces" else key): names for key, names in given.items()}
    try:
        pipeline.filter(**arguments)
    except ValueError as exc:
        options = ", ".join(f"{_OPTIONS[key][0]}={','.join(names)}" for key, names in given.items())
        raise ConfigurationError(f"{options}: expected nodes that meet all conditions, got none ({exc})") from exc


def _tags(pipeline: Pipeline) -> set[str]:
    return {tag for node in pipeline.nodes for tag in node.tags}


def _nodes(pipeline: Pipeline) -> set[str]:
    return {node.name for node in pipeline.nodes}


def _datasets(pipeline: Pipeline) -> set[str]:
    return {name for name in pipeline.datasets() if not name.startswith("params:")}


def _namespaces(pipeline: Pipeline) -> set[str]:
    parts = [node.namespace.split(".") for node in pipeline.nodes if node.namespace]
    return {".".join(names[:depth]) for names in parts for depth in range(1, len(names) + 1)}


_OPTIONS: dict[str, tuple[str, Callable[[Pipeline], set[str]]]] = {
    "tags": ("--tags", _tags),
    "node_names": ("--nodes", _nodes),
    "from_nodes": ("--from-nodes", _nodes),
    "to_nodes": ("--to-nodes", _nodes),
    "from_inputs": ("--from-inputs", _datasets),
    "to_outputs": ("--to-outputs", _datasets),
    "namespaces": ("--namespaces", _namespaces),
}
