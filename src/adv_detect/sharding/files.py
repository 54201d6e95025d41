"""Safetensors and JSON files on any fsspec filesystem: headers read alone, writing all or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor

from adv_detect.errors import DataError
from adv_detect.keys import TEMPORARY

LENGTH_BYTES = 8  # a safetensors file starts with the length of its JSON header, little endian
MAX_HEADER_BYTES = 100_000_000


def write_tensors(fs: AbstractFileSystem, path: str, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file so that it exists whole or not at all.

    Args:
        fs: Filesystem.
        path: Path on it; an existing file is replaced.
        tensors: Tensors by name.
        metadata: Text for the header; with more than one entry their order in the file is random.
    """
    separate = _separate(tensors)
    if isinstance(fs, LocalFileSystem):
        write_whole(fs, path, lambda temporary: save_file(separate, temporary, metadata=metadata))
    else:
        write_bytes(fs, path, save(separate, metadata=metadata))


def write_json(fs: AbstractFileSystem, path: str, content: Any) -> None:
    """Write a JSON file so that it exists whole or not at all.

    Args:
        fs: Filesystem.
        path: Path on it; an existing file is replaced.
        content: JSON-able value.
    """
    write_bytes(fs, path, json.dumps(content, indent=1).encode())


def write_bytes(fs: AbstractFileSystem, path: str, content: bytes) -> None:
    """Write bytes so that the file exists whole or not at all.

    Args:
        fs: Filesystem.
        path: Path on it; an existing file is replaced.
        content: The whole file.
    """
    write_whole(fs, path, lambda temporary: fs.pipe_file(temporary, content))


def write_whole(fs: AbstractFileSystem, path: str, write: Callable[[str], object]) -> None:
    """Let a function write to a temporary name beside ``path``, then rename.

    Args:
        fs: Filesystem.
        path: Final path; an existing file is replaced.
        write: Called with the temporary path.
    """
    temporary = f"{path}{TEMPORARY}{uuid4().hex}"
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    try:
        write(temporary)
        if isinstance(fs, LocalFileSystem):
            Path(temporary).replace(path)
        else:
            fs.mv(temporary, path)
    except BaseException:
        if fs.exists(temporary):
            fs.rm_file(temporary)
        raise


def read_tensors(fs: AbstractFileSystem, path: str, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Read tensors of a safetensors file.

    Args:
        fs: Filesystem.
        path: Path on it.
        names: Which ones, None for all; the bytes of others are not fetched.

    Returns:
        Tensors by name, on the CPU; on a local disk their pages are read when they are first used.

    Raises:
        DataError: The file is damaged, or lacks one of the names.
    """
    try:
        if isinstance(fs, LocalFileSystem):
            every = load_file(path)
            return dict(every) if names is None else {name: every[name] for name in names}
        return load(fs.cat_file(path)) if names is None else _read_ranges(fs, path, names)
    except KeyError as exc:
        raise _damaged(path, f"no tensor {exc}") from exc
    except SafetensorError as exc:
        raise _damaged(path, str(exc)) from exc


def read_json(fs: AbstractFileSystem, path: str) -> Any:
    """Read a JSON file.

    Args:
        fs: Filesystem.
        path: Path on it.

    Returns:
        Its content.

    Raises:
        DataError: The file is not JSON.
    """
    try:
        return json.loads(fs.cat_file(path))
    except ValueError as exc:
        raise _damaged(path, str(exc)) from exc


def read_header(fs: AbstractFileSystem, path: str) -> dict[str, str]:
    """Read the text metadata of a safetensors file without its tensors, and check the file's length.

    Args:
        fs: Filesystem.
        path: Path on it.

    Returns:
        Metadata by name.

    Raises:
        DataError: The file is shorter or longer than its header says, or no safetensors file.
    """
    return _read_index(fs, path)[0]


def _read_index(fs: AbstractFileSystem, path: str) -> tuple[dict[str, str], dict[str, Any], int]:
    """Read text metadata, the description of each tensor, and where their bytes begin."""
    with fs.open(path, "rb", **({} if isinstance(fs, LocalFileSystem) else {"block_size": 1 << 16})) as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 2 <= length <= MAX_HEADER_BYTES:
            raise _damaged(path, f"header of {length} bytes")
        raw = file.read(length)
    begin = LENGTH_BYTES + length
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__", {})
        end = begin + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, AttributeError, KeyError, IndexError, TypeError) as exc:
        raise _damaged(path, "unreadable header") from exc
    if fs.size(path) != end:
        raise _damaged(path, f"expected {end} bytes, got {fs.size(path)}")
    return dict(metadata), header, begin


def _read_ranges(fs: AbstractFileSystem, path: str, names: Collection[str]) -> dict[str, Tensor]:
    """Fetch single tensors: a file of their own is made from their bytes."""
    _, header, begin = _read_index(fs, path)
    entries, parts, length = {}, [], 0
    for name in names:
        first, last = header[name]["data_offsets"]
        parts.append(fs.cat_file(path, begin + first, begin + last) if last > first else b"")
        entries[name] = header[name] | {"data_offsets": [length, length + last - first]}
        length += last - first
    text = json.dumps(entries).encode()
    return load(len(text).to_bytes(LENGTH_BYTES, "little") + text + b"".join(parts))


def _damaged(path: str, reason: str) -> DataError:
    return DataError(f"{path} is damaged ({reason}); delete it and run the pipeline that makes it again")


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy what safetensors cannot write as it stands: views, tensors that share memory, other devices."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage()
        if storage.nbytes() != plain.nbytes or storage.data_ptr() in seen:
            plain = plain.clone(memory_format=torch.contiguous_format)
        seen.add(plain.untyped_storage().data_ptr())
        separate[name] = plain
    return separate
