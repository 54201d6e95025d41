"""Safetensors and JSON files on any fsspec filesystem: headers read alone, writing all or nothing, digests."""

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

from adv_detect.errors import DamagedFileError
from adv_detect.keys import TEMPORARY
from adv_detect.sharding.digests import tensor_digest
from adv_detect.sharding.seals import (
    CONTENT,
    Seal,
    opened_json,
    opened_metadata,
    sealed_json,
    sealed_metadata,
)

LENGTH_BYTES = 8  # a safetensors file starts with the length of its JSON header, little endian
MAX_HEADER_BYTES = 100_000_000
_COMPARED: dict[tuple[str, int, int, int], set[str]] = {}  # digests take longer than reading: once a process and file


def write_tensors(fs: AbstractFileSystem, path: str, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file so that it exists whole or not at all, with digests of all that is in it.

    Args:
        fs: Filesystem.
        path: Path on it; an existing file is replaced.
        tensors: Tensors by name.
        metadata: Text for the header.
    """
    separate = _separate(tensors)
    header = {CONTENT: sealed_metadata(separate, metadata)}  # one entry: safetensors writes several in random order
    if isinstance(fs, LocalFileSystem):
        write_whole(fs, path, lambda temporary: save_file(separate, temporary, metadata=header))
    else:
        write_bytes(fs, path, save(separate, metadata=header))


def write_json(fs: AbstractFileSystem, path: str, content: dict[str, Any]) -> None:
    """Write a JSON file so that it exists whole or not at all, with a digest of its content.

    Args:
        fs: Filesystem.
        path: Path on it; an existing file is replaced.
        content: JSON-able values by name.
    """
    write_bytes(fs, path, sealed_json(content))


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


def remove_leftovers(fs: AbstractFileSystem, path: str) -> None:
    """Delete temporary files that killed runs left beside a file.

    Args:
        fs: Filesystem.
        path: Path of the file that they were to become.
    """
    folder = path.rpartition("/")[0]
    for left in fs.find(folder, maxdepth=1) if fs.isdir(folder) else ():
        if left.startswith(f"{path}{TEMPORARY}"):
            fs.rm_file(left)


def read_tensors(fs: AbstractFileSystem, path: str, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Read tensors of a safetensors file and compare them with their digests.

    Args:
        fs: Filesystem.
        path: Path on it.
        names: Which ones, None for all; the bytes of others are not fetched.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        DamagedFileError: The file is not what was written, or lacks one of the names.
    """
    seal, index, begin = _read_index(fs, path)
    try:
        chosen = index if names is None else {name: index[name] for name in names}
        tensors = _read_chosen(fs, path, chosen, begin)
    except KeyError as exc:
        raise DamagedFileError(path, f"no tensor {exc}") from exc
    except SafetensorError as exc:
        raise DamagedFileError(path, str(exc)) from exc
    compared = _compared(fs, path)
    for name, tensor in tensors.items():
        if name not in compared and tensor_digest(tensor) != seal.digests[name]:
            raise DamagedFileError(path, f"the digest of tensor {name!r} is another one")
    compared.update(tensors)
    return tensors


def _compared(fs: AbstractFileSystem, path: str) -> set[str]:
    """Return the tensors of a file that this process has compared since the file last changed, to be added to."""
    if not isinstance(fs, LocalFileSystem):
        return set()
    state = Path(path).stat()
    return _COMPARED.setdefault((path, state.st_ino, state.st_size, state.st_mtime_ns), set())


def read_json(fs: AbstractFileSystem, path: str) -> dict[str, Any]:
    """Read a JSON file and compare it with its digest.

    Args:
        fs: Filesystem.
        path: Path on it.

    Returns:
        Its content.

    Raises:
        DamagedFileError: The file is not what was written.
    """
    return opened_json(fs.cat_file(path), path)


def read_header(fs: AbstractFileSystem, path: str) -> dict[str, str]:
    """Read the text metadata of a safetensors file without its tensors; check the header's digest and the length.

    Args:
        fs: Filesystem.
        path: Path on it.

    Returns:
        Metadata by name.

    Raises:
        DamagedFileError: The header is not what was written, or the file is shorter or longer than it says.
    """
    return _read_index(fs, path)[0].metadata


def _read_index(fs: AbstractFileSystem, path: str) -> tuple[Seal, dict[str, Any], int]:
    """Read metadata and digests, the description of each tensor, and where their bytes begin."""
    with fs.open(path, "rb", **({} if isinstance(fs, LocalFileSystem) else {"block_size": 1 << 16})) as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 2 <= length <= MAX_HEADER_BYTES:
            raise DamagedFileError(path, f"header of {length} bytes")
        raw = file.read(length)
    begin = LENGTH_BYTES + length
    try:
        header = json.loads(raw)
        content = header.pop("__metadata__", {})
        end = begin + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        described = {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()}
    except (ValueError, AttributeError, KeyError, IndexError, TypeError) as exc:
        raise DamagedFileError(path, "unreadable header") from exc
    if fs.size(path) != end:
        raise DamagedFileError(path, f"expected {end} bytes, got {fs.size(path)}")
    return opened_metadata(content, described, path), header, begin


def _read_chosen(fs: AbstractFileSystem, path: str, chosen: Mapping[str, Any], begin: int) -> dict[str, Tensor]:
    """Read tensors without the others: on a local disk their pages, elsewhere a file made from their bytes."""
    if isinstance(fs, LocalFileSystem):
        every = load_file(path)
        return {name: every[name] for name in chosen}
    entries, parts, length = {}, [], 0
    for name, entry in chosen.items():
        first, last = entry["data_offsets"]
        parts.append(fs.cat_file(path, begin + first, begin + last) if last > first else b"")
        entries[name] = entry | {"data_offsets": [length, length + last - first]}
        length += last - first
    text = json.dumps(entries).encode()
    return load(len(text).to_bytes(LENGTH_BYTES, "little") + text + b"".join(parts))


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
