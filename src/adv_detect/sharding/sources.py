"""The identity of code: digests of the user's own source files, and versions of installed distributions."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

OWN = __name__.split(".", maxsplit=1)[0]
"""This package: of its modules only those beside the one that is asked for count, installed or not."""

UNDERLYING = ("torch", "numpy")
"""Left out where other code imports them: everything does, and they promise equal results up to rounding."""

INSTALLED = ("site-packages", "dist-packages")
LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class _Import(NamedTuple):
    """An import statement: the module, how many packages up it starts, and what is taken from it."""

    module: str
    level: int = 0
    members: tuple[str, ...] = ()


class _Code(NamedTuple):
    """The digest of a source file's code, and its imports."""

    digest: str
    imports: tuple[_Import, ...]


def source_identity(made_by: object, path: str = "") -> dict[str, str]:
    """Identify the code behind a class or function.

    Counted are the module that defines it and the modules of the user's own that this one imports, directly or through
    others, by their source without comments and docstrings; and the versions of the installed distributions that these
    come from or import. Nothing is imported for this.

    Args:
        made_by: A class or function.
        path: Dotted path under which it was found, where that may be another module than the one that defines it.

    Returns:
        Digest by ``source <module>``, version by ``version <package>``; equal in every process until code changes.
    """
    defining = str(getattr(getattr(made_by, "func", made_by), "__module__", None) or type(made_by).__module__)
    waiting = sorted({defining, path.rpartition(".")[0]} - {""})
    first, found = set(waiting), dict[str, str]()
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if f"source {name}" in found or file is None:
            continue
        if _is_own(name) or not _is_installed(file):
            code = _code(file.read_bytes(), is_python=file.suffix == ".py")
            found[f"source {name}"] = code.digest
            waiting += [one for one in _imported(code, name, file) if _is_followed(one, name)]
        elif name in first:
            found[f"source {name}"] = _code(file.read_bytes(), is_python=False).digest
        found |= _version(name, file, asked_for=name in first)
    return dict(sorted(found.items()))


def _is_followed(imported: str, importing: str) -> bool:
    if _is_own(importing):
        return _is_own(imported) and imported.rpartition(".")[0] == importing.rpartition(".")[0]
    return imported not in sys.builtin_module_names


def _is_own(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] == OWN


def _is_installed(file: Path) -> bool:
    resolved = file.resolve()
    return any(part in INSTALLED for part in resolved.parts) or any(resolved.is_relative_to(one) for one in LIBRARIES)


def _file(name: str) -> Path | None:
    """Find the file of a module, without running anything; None for what is no module or has no file."""
    module = sys.modules.get(name)
    place = getattr(module, "__file__", None)
    parent = name.rpartition(".")[0]
    if module is None and (not parent or hasattr(sys.modules.get(parent), "__path__")):
        try:
            spec = find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
        place = spec.origin if spec is not None and spec.has_location else None
    return Path(place) if place and Path(place).is_file() else None


@cache  # by content: of some files every attack, detector and network asks
def _code(content: bytes, *, is_python: bool) -> _Code:
    """Digest the code of a file and list its imports; by its bytes where they are no Python, or stand for a version."""
    tree = _tree(content) if is_python else None
    if tree is None:
        return _Code(hashlib.sha256(content).hexdigest(), ())
    imports = tuple(_imports(tree))
    return _Code(hashlib.sha256(ast.unparse(_without_docstrings(tree)).encode()).hexdigest(), imports)


def _tree(content: bytes) -> ast.Module | None:
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError):
        return None


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _imports(tree: ast.Module) -> Iterator[_Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_Import(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield _Import(node.module or "", node.level, tuple(alias.name for alias in node.names))


def _imported(code: _Code, name: str, file: Path) -> Iterator[str]:
    """Name what a module imports; for ``from a import b`` both ``a`` and ``a.b``, which may be a module too."""
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    for one in code.imports:
        above = package[: len(package) - one.level + 1] if one.level else []
        base = ".".join([*above, *([one.module] if one.module else [])])
        yield base
        yield from (f"{base}.{member}" for member in one.members)


def _version(name: str, file: Path, *, asked_for: bool) -> dict[str, str]:
    """Give the version of the distribution that a module comes from; empty where it comes from none."""
    top = name.split(".", maxsplit=1)[0]
    if top == OWN or top in sys.stdlib_module_names or (top in UNDERLYING and not asked_for):
        return {}
    try:
        return {f"version {top}": version(top)}
    except PackageNotFoundError:
        names = _distributions().get(top, []) if _is_installed(file) else []
    return {f"version {one}": version(one) for one in sorted(set(names))}


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Distributions by package, for packages that are called otherwise; reads the files of all that is installed."""
    return packages_distributions()
