"""Reader of pickled dictionaries of NumPy arrays that runs no code from the file.

Of all names a pickle may ask for, only those that NumPy arrays, their data types and scalars are made of are
admitted, and each stands for a plain stand-in of this module: nothing of NumPy's own is called by the file.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

NUMERIC_KINDS = "biuf"
LATIN1_NAMES = ("latin1", "latin-1", "iso-8859-1")
DEEPEST = 4
"""Levels of dictionaries that are looked into."""

MISSING_BYTES = "an array without data"


class _DataType:
    """Stand-in for ``numpy.dtype``: a plain number type and its byte order."""

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        self.value = np.dtype(code) if isinstance(code, str) else np.dtype("O")
        if self.value.kind not in NUMERIC_KINDS:
            raise pickle.UnpicklingError(f"expected numbers, got an array of type {code!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stand-in for ``numpy.ndarray``, filled from the pickled state."""

    value: npt.NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, data_type, fortran_order, raw = state
        self.value = _from_bytes(raw, data_type, shape, "F" if fortran_order else "C")


class _NumpyNames:
    """Marker for classes that a pickle names but never needs to call."""


def _from_bytes(raw: Any, data_type: _DataType, shape: tuple[int, ...], order: str) -> npt.NDArray[Any]:
    data = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
    flat = np.frombuffer(data, dtype=data_type.value)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(subtype: object, shape: object, code: object) -> _Array:
    return _Array()


def _scalar(data_type: _DataType, raw: Any) -> Any:
    return _from_bytes(raw, data_type, (), "C")[()]


def _frombuffer(
    raw: Any, data_type: _DataType, shape: tuple[int, ...], order: str, axes: tuple[int, ...] | None = None
) -> npt.NDArray[Any]:
    values = _from_bytes(raw, data_type, shape, order)
    return values.transpose(axes) if order == "K" and axes is not None else values


def _empty_bytes() -> bytes:
    return b""


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in LATIN1_NAMES:
        raise pickle.UnpicklingError(f"expected latin1 text, got encoding {encoding!r}")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _NumpyNames,
    ("numpy", "dtype"): _DataType,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _empty_bytes,
}
for _module in ("numpy.core", "numpy._core"):
    _ADMITTED[f"{_module}.multiarray", "_reconstruct"] = _reconstruct
    _ADMITTED[f"{_module}.multiarray", "scalar"] = _scalar
    _ADMITTED[f"{_module}.numeric", "_frombuffer"] = _frombuffer


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler that admits the parts of numeric arrays and nothing else."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return the stand-in of an admitted name; refuse all others."""
        try:
            return _ADMITTED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the file asks for {module_name}.{global_name}; only NumPy arrays are read, never code"
            ) from None


def read_pickled_arrays(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of NumPy arrays, or dictionaries within it, also one written by Python 2.

    Args:
        path: The file.

    Returns:
        Array by name, in native byte order, or a dictionary of such; entries that are neither are left out.

    Raises:
        pickle.UnpicklingError: When the file is no such pickle, is damaged, or asks for anything but arrays.
    """
    with path.open("rb") as stream:
        try:
            content = _ArrayUnpickler(stream, encoding="latin1").load()
        except pickle.UnpicklingError:
            raise
        except Exception as exc:  # a damaged pickle may fail in any opcode
            raise pickle.UnpicklingError(f"not a readable pickle: {type(exc).__name__}: {exc}") from exc
    if not isinstance(content, dict):
        raise pickle.UnpicklingError(f"expected a dictionary of arrays, got {type(content).__name__}")
    return _arrays(content)


def _arrays(content: dict[Any, Any], depth: int = 0) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, entry in content.items():
        nested = isinstance(entry, dict) and depth < DEEPEST
        values[_text(name)] = _arrays(entry, depth + 1) if nested else _value(entry)
    return {name: value for name, value in values.items() if value is not None}


def _text(name: object) -> str:
    return name.decode("latin1") if isinstance(name, bytes) else str(name)


def _value(entry: object) -> npt.NDArray[Any] | None:
    """Return an own, writable copy of an array or scalar in native byte order."""
    if isinstance(entry, _Array):
        if entry.value is None:
            raise pickle.UnpicklingError(MISSING_BYTES)
        entry = entry.value
    if not isinstance(entry, np.ndarray | np.generic):
        return None
    values = np.asarray(entry)
    return values.astype(values.dtype.newbyteorder("="), order="C", copy=True)
