"""Reference of all parameters as one page: name, values, default, meaning.

``python -m adv_detect.params.reference`` writes ``docs/parameters.md``. The meaning of a parameter stands in one
place: as a comment at its value in ``conf/base``, or, where it has no line of its own there, as a docstring below the
field of the typed block.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from adv_detect.fields import LARGEST, Block
from adv_detect.params import BLOCKS, NetworkParams, PreprocessingParams

CONF, PAGE = Path("conf/base"), Path("docs/parameters.md")
HEAD = """\
# Parameters

Every parameter of `conf/base`, by block. An environment (`conf/<env>/`) states what differs from `conf/base`; one value
is changed for one run with `--params=runtime.seed=1,evaluation.bootstrap=200`. A misspelt name or a value out of range
ends a run before work, with the names and bounds that are valid. Numbers of pixels may be written as fractions,
`8/255`. `<name>` stands for a name of one's own, such as that of an attack. *Default* is the value in `conf/base`, or,
where none stands there, that of the code.

This page is made from the typed blocks (`src/adv_detect/params/`) and the comments of `conf/base` by `make parameters`.
"""
LONGEST_DEFAULT = 60
MUST = "must be given"
HOMES: dict[type[Block], str] = {NetworkParams: "network", PreprocessingParams: "network.preprocessing"}
"""Where blocks that stand in several places are described."""
KEY = re.compile(r"^( *)([\w.-]+):(.*)$")
COMMENT = re.compile(r"(?:^|\s)#\s?(.*)$")
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤", "multipleOf": "multiple of"}
PLAIN = {"integer": "integer", "number": "number", "string": "text", "boolean": "`true` or `false`", "null": "`null`"}

Path_ = tuple[str, ...]


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        name: Dotted name, with ``<name>`` for names of one's own.
        values: Type and bounds in words.
        default: The value where nothing is said, as YAML; or that one must be given.
        meanings: What it means, from each place that says so: there should be one.
    """

    name: str
    values: str
    default: str
    meanings: tuple[str, ...]


def render(conf: Path) -> str:
    """Write the page.

    Args:
        conf: Folder ``conf/base``.

    Returns:
        Markdown.
    """
    parts = [HEAD]
    for name, block in BLOCKS.items():
        rows = [[f"`{one.name}`", one.values, one.default, " ".join(one.meanings)] for one in parameters(name, conf)]
        table = [["name", "values", "default", "meaning"], ["---"] * 4, *rows]
        lines = "\n".join(f"| {' | '.join(row)} |" for row in table)
        parts.append(f"## {name}\n{summary(block)}. In `{CONF.as_posix()}/{_file(name, conf).name}`.\n\n{lines}\n")
    return "\n".join(parts)


def summary(block: type[Block]) -> str:
    """First paragraph of the docstring of a block, as Markdown."""
    return _marked(inspect.cleandoc(block.__doc__ or "").partition("\n\n")[0]).removesuffix(".")


def parameters(name: str, conf: Path) -> list[Parameter]:
    """List the parameters of a block, in the order of its fields.

    Args:
        name: Name of the block.
        conf: Folder ``conf/base``.

    Returns:
        A parameter per field; of fields that hold blocks, those of the inner block.
    """
    text = _file(name, conf).read_text(encoding="utf-8")
    return list(_fields(BLOCKS[name], (name,), yaml.safe_load(text)[name], comments(text)))


def _file(name: str, conf: Path) -> Path:
    own = conf / f"parameters_{name}.yml"
    return own if own.exists() else conf / "parameters.yml"


def _fields(
    block: type[Block], place: Path_, values: Mapping[str, Any], said: Mapping[Path_, str]
) -> Iterator[Parameter]:
    properties, below = block.model_json_schema()["properties"], field_docstrings(block)
    for key, field in block.model_fields.items():
        here = (*place, key)
        name, inner = ".".join(here), _inner_block(field.annotation)
        home = HOMES.get(inner, name) if inner is not None else name
        given = values.get(key, field.get_default(call_default_factory=True))
        unsaid = field.is_required() and key not in values
        default = "" if inner and isinstance(given, Block | Mapping) else MUST if unsaid else _default(given)
        whole = summary(inner) if inner and home == name and here not in said and key not in below else None
        meanings = tuple(_marked(one) for one in (said.get(here), below.get(key), whole) if one)
        allowed = words(properties[key], "keys below" if home == name else f"keys as of `{home}`")
        yield Parameter(name, allowed, default, meanings)
        if inner is not None and home == name:
            yield from _below(inner, here, field.annotation, given, said)


def _below(
    inner: type[Block], here: Path_, annotation: Any, given: Any, said: Mapping[Path_, str]
) -> Iterator[Parameter]:
    """Go on with the parameters of the block, or of the blocks by name, that a field holds."""
    named = any(get_origin(one) is dict for one in (annotation, *get_args(annotation)))
    values = given if isinstance(given, Mapping) and not named else {}
    yield from _fields(inner, (*here, "<name>") if named else here, values, said)


def _inner_block(annotation: Any) -> type[Block] | None:
    """Find the block that a field holds, by itself or among others."""
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return annotation
    return next((one for one in map(_inner_block, get_args(annotation)) if one is not None), None)


def _default(value: Any) -> str:
    """Write a value as YAML in one line; a long one stands in the file alone."""
    plain = (
        value.model_dump(mode="json")
        if isinstance(value, Block)
        else list(value)
        if isinstance(value, tuple)
        else value
    )
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
    return f"`{text}`" if len(text) <= LONGEST_DEFAULT else "see the file"


def words(schema: Mapping[str, Any], keys: str = "keys below") -> str:
    """Say in words which values a JSON schema allows.

    Args:
        schema: Schema of a field.
        keys: Words for a block.

    Returns:
        Words for a cell of a table, such as ``integer ≥ 1 or `null```.
    """
    if "$ref" in schema:
        return keys
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(words(one, keys) for one in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return _list_words(schema, keys)
    if schema.get("type") == "object":
        return _mapping_words(schema, keys)
    bounds = [f"{sign} {schema[key]:,}" for key, sign in BOUNDS.items() if key in schema and schema[key] != LARGEST]
    return " ".join([PLAIN.get(schema.get("type", ""), "any value"), ", ".join(bounds)]).strip()


def _list_words(schema: Mapping[str, Any], keys: str) -> str:
    if "prefixItems" in schema:
        return f"list: {', '.join(words(one, keys) for one in schema['prefixItems'])}"
    least = ", at least one" if schema.get("minItems") else ""
    return f"list{least}: {words(schema['items'], keys)}"


def _mapping_words(schema: Mapping[str, Any], keys: str) -> str:
    inner = schema.get("additionalProperties")
    if not isinstance(inner, Mapping):
        return "arguments by name"
    names = schema.get("propertyNames", {})
    return f"by {words(names) if 'enum' in names else 'name'}: {words(inner, keys)}"


def field_docstrings(block: type[Block]) -> dict[str, str]:
    """Read the docstrings below the fields of a block and of the blocks that it extends.

    Args:
        block: A typed block.

    Returns:
        Text by name of the field.
    """
    found: dict[str, str] = {}
    for one in block.__mro__:
        if issubclass(one, Block) and one is not Block:
            [tree] = ast.parse(textwrap.dedent(inspect.getsource(one))).body
            assert isinstance(tree, ast.ClassDef)
            found = dict(_described(tree)) | found
    return found


def _described(tree: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, str):
            yield field.target.id, " ".join(text.split()).removesuffix(".")


def comments(text: str) -> dict[Path_, str]:
    """Read the comments of a YAML file, each at the key that it explains.

    A comment explains the key in whose line it stands, or the key below it; lines that go on below in the same column
    belong to it.

    Args:
        text: Content of the file.

    Returns:
        Comment by path of the key.
    """
    said: dict[Path_, str] = {}
    stack: list[tuple[int, str]] = []
    above: list[str] = []
    column = -1
    last: Path_ = ()
    for line in text.splitlines():
        comment = COMMENT.search(line)
        start = line.find("#", comment.start()) if comment else -1
        key = KEY.match(line[:start] if comment else line)
        if key is not None:
            stack = [one for one in stack if one[0] < len(key[1])] + [(len(key[1]), key[2])]
            last, column = tuple(name for _, name in stack), start
            found = comment[1].strip() if comment else " ".join(above)
            said |= {last: found} if found else {}
            above = []
        elif comment is None or line[:start].strip():
            above, column = [], -1
        elif start == column and last in said:
            said[last] += f" {comment[1].strip()}"
        else:
            above, column = [*above, comment[1].strip()], -1
    return said


def _marked(text: str) -> str:
    """Turn reStructuredText literals into Markdown, and keep bars and angle brackets of the text out of the table's."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    PAGE.write_text(render(CONF), encoding="utf-8")
