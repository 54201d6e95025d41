"""Addresses of the MLflow stores: an exported one, else that of ``mlflow.yml``, else the project's database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

TRACKING, REGISTRY = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
KEYS = {TRACKING: "mlflow_tracking_uri", REGISTRY: "mlflow_registry_uri"}
SQLITE = "sqlite:///"
SERVERS = ("http", "https")
DATABASE, ARTIFACTS = "mlflow.db", "mlruns"

_exported: dict[str, str] = {}
"""Variables that MLflow exported for this process on our behalf; they are no choice of the user."""


def choose_addresses(server: dict[str, Any], project: Path) -> dict[str, Any]:
    """Fill the addresses into the block ``server`` of ``mlflow.yml``.

    An address that the user exported goes before one in the file. A name and a password in an address move into the
    variables that MLflow has for them, so that the address can be shown.

    Args:
        server: The block as it stands in the file.
        project: Folder of the project.

    Returns:
        The block with both addresses; the registry's is None where it is that of the tracking store.
    """
    chosen = dict(server)
    for variable, key in KEYS.items():
        exported = os.environ.get(variable)
        if exported and exported != _exported.get(variable):
            chosen[key] = absolute_address(exported, Path.cwd())
        elif server.get(key):
            chosen[key] = absolute_address(str(server[key]), project)
    if not chosen.get(KEYS[TRACKING]):
        chosen[KEYS[TRACKING]] = database_address(project)
    return chosen | {key: without_credentials(chosen[key]) for key in KEYS.values() if chosen.get(key)}


def remember_exported(server: dict[str, Any]) -> None:
    """Note which variables MLflow is about to export, and drop what it exported for a session before this one.

    Args:
        server: The block ``server`` with the addresses that were chosen.
    """
    for variable, key in KEYS.items():
        before = os.environ.get(variable)
        if before and before == _exported.get(variable):
            del os.environ[variable]
            before = None
        _exported.pop(variable, None)
        if not before and server.get(key):
            _exported[variable] = str(server[key])


def database_address(project: Path) -> str:
    """Address of the project's own database.

    Args:
        project: Folder of the project.

    Returns:
        An address for SQLAlchemy.
    """
    return f"{SQLITE}{project / DATABASE}"


def database_file(address: str) -> Path | None:
    """Find the file of a database.

    Args:
        address: Address of a store.

    Returns:
        None where the store is no SQLite file.
    """
    path = address.removeprefix(SQLITE).split("?", maxsplit=1)[0]
    return Path(path) if address.startswith(SQLITE) and path not in ("", ":memory:") else None


def is_server(address: str) -> bool:
    """Tell whether a store is behind a server, which then decides where artifacts go.

    Args:
        address: Address of a store.

    Returns:
        False for databases and folders.
    """
    return urlsplit(address).scheme in SERVERS or address.startswith("databricks")


def without_credentials(address: str) -> str:
    """Move name and password out of an address into MLflow's variables for them.

    Args:
        address: Address of a store.

    Returns:
        The address of a server without them; any other as it is, since a database takes them from nowhere else.
    """
    parts = urlsplit(address)
    if parts.scheme not in SERVERS or parts.username is None:
        return address
    os.environ[USER], os.environ[PASSWORD] = unquote(parts.username), unquote(parts.password or "")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def absolute_address(address: str, folder: Path) -> str:
    """Make a path, or the path of a database, independent of where the process stands.

    Args:
        address: Address or path of a store or of artifacts.
        folder: What a relative path is relative to.

    Returns:
        An absolute address.
    """
    file = database_file(address)
    if file is not None:
        return f"{SQLITE}{folder / file}{address.removeprefix(SQLITE)[len(str(file)) :]}"
    if urlsplit(address).scheme or address.startswith("databricks"):
        return address
    return (folder / address).as_uri()
