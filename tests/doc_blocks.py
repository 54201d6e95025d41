"""Code blocks of the documentation: where they stand, and what a reader does with them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter

from adv_detect.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

FENCE = re.compile(r"^ *```(\S*) *$")
MARK = re.compile(r"^ *<!-- not run: (.+) -->$")
FILE = re.compile(r"^# (in )?(\S+\.(?:py|ya?ml))$")
KEDRO_RUN = re.compile(r"kedro run(?: +--[^`#\n]*)?")
LANGUAGES = ("bash", "python", "yaml", "text")
COMMANDS = re.compile(r"^(kedro|pip|python3?|make|mlflow|curl|jupyter|export)\b", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``reason`` says why it is not run, None where it is."""

    page: str
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that the block is, or belongs into."""
        found = FILE.match(self.text.partition("\n")[0])
        return found[2] if found else None

    @property
    def merged(self) -> bool:
        """Whether the block goes into a file that is there."""
        found = FILE.match(self.text.partition("\n")[0])
        return bool(found and found[1])


def read_blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order; a mark stands in the line before the fence."""
    lines = page.read_text(encoding="utf-8").splitlines()
    blocks, opened = [], None
    for number, line in enumerate(lines, start=1):
        fence = FENCE.match(line)
        if fence is None:
            continue
        if opened is None:
            opened = number, fence[1]
            continue
        mark = MARK.match(lines[opened[0] - 2]) if opened[0] > 1 else None
        text = "\n".join(lines[opened[0] : number - 1]) + "\n"
        blocks.append(Block(page.name, opened[0], opened[1], text, mark[1] if mark else None))
        opened = None
    assert opened is None, f"{page}: the block of line {opened} is never closed"
    return blocks


def fault(block: Block) -> str | None:
    """What is wrong with how a block is marked."""
    if block.language not in LANGUAGES:
        return f"expected a language of {LANGUAGES}, got {block.language!r}"
    if block.language == "text" and COMMANDS.search(block.text):
        return "a command in a block of text would be run by no test"
    if block.reason is not None and len(block.reason.split()) < 3:
        return f"expected a reason, got {block.reason!r}"
    return None


def kedro_commands(text: str) -> Iterator[list[str]]:
    """Options of every ``kedro run`` in a text, whether in a block or in a sentence."""
    for found in KEDRO_RUN.findall(text):
        options = shlex.split(found.strip())[2:]
        yield [option for option in options if option.startswith("--")]


def merge(base: Any, change: Any) -> Any:
    """Nested dictionaries one over the other, as Kedro merges the parameters of an environment."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    return base | {key: merge(base.get(key), value) for key, value in change.items()}


def parameters(conf: Path, env: str) -> dict[str, Any]:
    """The parameters of an environment."""
    loader = CONFIG_LOADER_CLASS(str(conf), env=env, **CONFIG_LOADER_ARGS)
    return dict(loader["parameters"])


def parameter_types() -> dict[str, Any]:
    """Type of each parameter block, from the nodes that read it."""
    from kedro.framework.project import pipelines

    types = {}
    for pipeline in pipelines.values():
        for node in pipeline.nodes:
            hints = get_type_hints(node.func)
            hints.pop("return", None)
            for name, hint in zip(node.inputs, hints.values(), strict=False):  # datasets of any name come last
                if name.startswith("params:"):
                    types[name.removeprefix("params:")] = hint
    return types


def check_parameters(values: dict[str, Any], types: dict[str, Any], *, untyped: tuple[str, ...]) -> None:
    """Build every block; a key that no node reads must be among ``untyped``."""
    unread = set(values) - set(types) - set(untyped)
    assert not unread, f"no node reads the parameters {sorted(unread)}; there are {sorted(types)}"
    for name, value in values.items():
        if name in types:
            TypeAdapter(types[name]).validate_python(value)


def put_into(path: Path, text: str) -> None:
    """Do what a reader does with a block that goes into a file."""
    there = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(merge(there, yaml.safe_load(text)), sort_keys=False), encoding="utf-8")
