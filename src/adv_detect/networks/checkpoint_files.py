"""Weight files, recognised by content and read without running code from them."""

from __future__ import annotations

import pickle
import re
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from adv_detect.errors import CheckpointError
from adv_detect.networks.numpy_pickle import DEEPEST, read_pickled_arrays

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_TORCH_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled number at the head of a ``torch.save`` file older than PyTorch 1.6."""

SAFETENSORS_LENGTH_BYTES = 8
NOT_WEIGHTS = "optim"
"""How the names of entries start that hold the state of an optimiser, thousands of tensors deep."""

READABLE = (
    "a safetensors file, a torch.save dictionary with 'model_state_dict', or a pickled dictionary of NumPy arrays"
)


def read_state_dicts(path: str | Path) -> dict[str, dict[str, Tensor]]:
    """Read all state dicts of a weight file.

    Args:
        path: A safetensors file, a ``torch.save`` file (a state dict, or dictionaries that hold one, such as
            ``{"checkpoint": {"state_dict": ...}}``; other entries are ignored), or the same as a
            pickle of NumPy arrays.

    Returns:
        Tensor by the name it has in the file, on the CPU, by the dotted path of the dictionary that holds it; the path
        of the file itself is the empty text. In the order of the file, outer ones first; at least one.

    Raises:
        CheckpointError: When the file is missing, damaged, of another form, holds no tensors, or asks for code.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"checkpoint: no such file: '{file}'; expected {READABLE}")
    content = _read(file)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"checkpoint '{file}': expected {READABLE}; it holds a {type(content).__name__}")
    found = dict(_state_dicts(content))
    if not found:
        raise CheckpointError(f"checkpoint '{file}': expected {READABLE}; it holds no tensors")
    return found


def _state_dicts(content: Mapping[Any, Any], path: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Walk through dictionaries within dictionaries; give those that hold tensors themselves."""
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    for name, value in content.items() if depth < DEEPEST else ():
        if isinstance(value, Mapping) and isinstance(name, str) and not name.lower().startswith(NOT_WEIGHTS):
            yield from _state_dicts(value, f"{path}.{name}" if path else name, depth + 1)


def _read(file: Path) -> object:
    with file.open("rb") as stream:
        head = stream.read(len(LEGACY_TORCH_MAGIC))
    try:
        if head[SAFETENSORS_LENGTH_BYTES : SAFETENSORS_LENGTH_BYTES + 1] == b"{":
            return load_file(file)
        if head.startswith(ZIP_MAGIC) or head == LEGACY_TORCH_MAGIC:
            return _torch_load(file)
        return _as_tensors(read_pickled_arrays(file))
    except (SafetensorError, pickle.UnpicklingError, TypeError) as exc:
        raise CheckpointError(f"checkpoint '{file}': expected {READABLE}; it cannot be read: {exc}") from exc


def _torch_load(file: Path) -> object:
    """Load tensors and plain values; NumPy scalars (a best accuracy) and parsed arguments are admitted too."""
    scalar: Any = np.float64(0.0).__reduce__()[0]
    number_types: list[Any] = [type(np.dtype(code)) for code in ("f2", "f4", "f8", "i4", "i8", "b1")]
    admitted = [Namespace, np.dtype, *number_types, (scalar, "numpy.core.multiarray.scalar"), scalar]
    with torch.serialization.safe_globals(admitted):
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as exc:  # a damaged file may fail anywhere; PyTorch's own message advises unsafe loading
            raise CheckpointError(
                f"checkpoint '{file}': expected {READABLE}; it is damaged, or holds more than tensors and plain values "
                f"(code in a file is never run): {_refused(exc)}; where it was written, save its state dict alone"
            ) from exc


def _refused(exc: Exception) -> str:
    """Return what the file asked for, else the first line of the message."""
    match = re.search(r"GLOBAL (\S+)", str(exc))
    first_line = (str(exc).splitlines() or [""])[0]
    return f"it asks for {match[1]}" if match else f"{type(exc).__name__}: {first_line}"


def _as_tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _as_tensors(value) if isinstance(value, Mapping) else torch.from_numpy(value)
        for name, value in arrays.items()
    }
