"""Weight files, recognised by content and read without running code from them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from adv_detect.errors import CheckpointError
from adv_detect.networks.numpy_pickle import read_pickled_arrays

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_TORCH_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled number at the head of a ``torch.save`` file older than PyTorch 1.6."""

SAFETENSORS_LENGTH_BYTES = 8
STATE_KEYS = ("model_state_dict", "state_dict")
PARALLEL_PREFIX = "module."
READABLE = (
    "a safetensors file, a torch.save dictionary with 'model_state_dict', or a pickled dictionary of NumPy arrays"
)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weight file.

    Args:
        path: A safetensors file, a ``torch.save`` file (a state dict, or a dictionary that holds one under
            ``model_state_dict`` or ``state_dict``; other entries are ignored), or a pickled dictionary of NumPy arrays.

    Returns:
        Tensor by the name it has in the file, on the CPU, without the ``module.`` prefix of parallel training.

    Raises:
        CheckpointError: When the file is missing, damaged, of another form, holds no tensors, or asks for code.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"checkpoint: no such file: '{file}'; expected {READABLE}")
    tensors = _strip_prefix(_read(file))
    if not tensors:
        raise CheckpointError(f"checkpoint '{file}': expected {READABLE}; it holds no tensors")
    return tensors


def _read(file: Path) -> dict[str, Tensor]:
    with file.open("rb") as stream:
        head = stream.read(len(LEGACY_TORCH_MAGIC))
    try:
        if head[SAFETENSORS_LENGTH_BYTES : SAFETENSORS_LENGTH_BYTES + 1] == b"{":
            return load_file(file)
        if head.startswith(ZIP_MAGIC) or head == LEGACY_TORCH_MAGIC:
            return _state_dict(_torch_load(file), file)
        return {name: torch.from_numpy(array) for name, array in read_pickled_arrays(file).items()}
    except (SafetensorError, pickle.UnpicklingError, TypeError) as exc:
        raise CheckpointError(f"checkpoint '{file}': expected {READABLE}; it cannot be read: {exc}") from exc


def _torch_load(file: Path) -> object:
    """Load tensors and plain values; NumPy scalars, usual for a best accuracy, are admitted too."""
    scalar: Any = np.float64(0.0).__reduce__()[0]
    number_types: list[Any] = [type(np.dtype(code)) for code in ("f2", "f4", "f8", "i4", "i8", "b1")]
    admitted = [np.dtype, *number_types, (scalar, "numpy.core.multiarray.scalar"), scalar]
    with torch.serialization.safe_globals(admitted):
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as exc:  # a damaged file may fail anywhere; PyTorch's own message advises unsafe loading
            raise CheckpointError(
                f"checkpoint '{file}': expected {READABLE}; it is damaged, or holds more than tensors and plain values "
                f"(code in a file is never run): {_refused(exc)}"
            ) from exc


def _refused(exc: Exception) -> str:
    """Return what the file asked for, else the first line of the message."""
    match = re.search(r"GLOBAL (\S+)", str(exc))
    first_line = (str(exc).splitlines() or [""])[0]
    return f"it asks for {match[1]}" if match else f"{type(exc).__name__}: {first_line}"


def _state_dict(content: object, file: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for key in STATE_KEYS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping):
        raise CheckpointError(f"checkpoint '{file}': expected {READABLE}; it holds a {type(content).__name__}")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _strip_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(PARALLEL_PREFIX): tensor for name, tensor in tensors.items()}
