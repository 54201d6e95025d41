"""Filesystem and path of a dataset, from the arguments of its catalog entry."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs


def open_location(
    filepath: str | PathLike[str], credentials: Mapping[str, Any] | None, fs_args: Mapping[str, Any] | None
) -> tuple[AbstractFileSystem, str]:
    """Open the filesystem of a catalog entry.

    Args:
        filepath: Local path or fsspec address.
        credentials: Arguments of the filesystem that are secret.
        fs_args: Further arguments of the filesystem.

    Returns:
        The filesystem and the path on it.
    """
    fs, path = url_to_fs(str(filepath), **storage_options(credentials, fs_args))
    return fs, str(path).rstrip("/")


def storage_options(credentials: Mapping[str, Any] | None, fs_args: Mapping[str, Any] | None) -> dict[str, Any]:
    """Join the arguments of a filesystem into a new dictionary."""
    return {**(credentials or {}), **(fs_args or {})}


def how_to_make(made_by: str | None) -> str:
    """Say which command makes a dataset that is not there."""
    pipeline = f" --pipeline={made_by}" if made_by else ""
    return f"make it with: kedro run{pipeline}"
