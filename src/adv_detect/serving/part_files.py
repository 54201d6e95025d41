"""Files of one part of a bundle: tensors, and the facts that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from torch import Tensor

from adv_detect.errors import DamagedFileError
from adv_detect.sharding import files, fingerprint


def write_part(folder: Path, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and facts, each with its digest; the tensors name the facts that they belong to.

    Args:
        folder: Where to.
        name: Name of both files, without suffix.
        tensors: To be ``<name>.safetensors``.
        metadata: To be ``<name>.json``.
    """
    fs = LocalFileSystem()
    files.write_tensors(
        fs, str(folder / f"{name}.safetensors"), tensors, {"name": name, "metadata": fingerprint(metadata)}
    )
    files.write_json(fs, str(folder / f"{name}.json"), dict(metadata))


def read_part(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_part` wrote.

    Args:
        folder: Where from.
        name: Name of both files, without suffix.

    Returns:
        Tensors and facts.

    Raises:
        DamagedFileError: One of the files is not what was written, or they do not belong together.
    """
    fs, path = LocalFileSystem(), str(folder / f"{name}.safetensors")
    metadata = files.read_json(fs, str(folder / f"{name}.json"))
    if files.read_header(fs, path) != {"name": name, "metadata": fingerprint(metadata)}:
        raise DamagedFileError(path, f"it does not belong to {name}.json")
    return files.read_tensors(fs, path), metadata
