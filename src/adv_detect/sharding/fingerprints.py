"""Digests that tell whether something on disk was made from the same ingredients."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from adv_detect.sharding.digests import tensor_digest


def fingerprint(*parts: Any) -> str:
    """Digest values so that equal ones, and only they, get the same text.

    Args:
        *parts: Pydantic models, dataclasses, mappings with text keys, sequences, sets, tensors, arrays, paths,
            numbers, text, bytes, None. A tuple equals a list; the order of a mapping's keys does not matter;
            tensors count by shape, dtype and bytes, wherever they live.

    Returns:
        SHA-256 of their canonical JSON, 64 hexadecimal digits.

    Raises:
        TypeError: A value of another type, whose text might change from run to run.
    """
    text = json.dumps([_canonical(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(fingerprints: Mapping[str, str]) -> str:
    """Digest a whole data set from the fingerprints of its shards.

    Args:
        fingerprints: Fingerprint of each shard by key.

    Returns:
        SHA-256 of the pairs sorted by key.
    """
    return fingerprint(sorted(fingerprints.items()))


def _canonical(value: Any) -> Any:
    if isinstance(value, Enum):
        return _canonical(value.value)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float | np.number | np.bool_):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, PurePath):
        return value.as_posix()
    return _canonical_binary(value) if isinstance(value, Tensor | np.ndarray | bytes) else _canonical_container(value)


def _canonical_binary(value: Tensor | np.ndarray | bytes) -> dict[str, Any]:
    if isinstance(value, bytes):
        return {"bytes": hashlib.sha256(value).hexdigest()}
    tensor = torch.from_numpy(np.array(value, order="C")) if isinstance(value, np.ndarray) else value
    form = [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
    return {"tensor": form, "bytes": tensor_digest(tensor)}


def _canonical_container(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _canonical(dict(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _canonical(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_text_key(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_canonical(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    raise TypeError(
        f"fingerprint: expected models, mappings, sequences, tensors, numbers, text or None, got {type(value).__name__}"
    )


def _text_key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"fingerprint: expected text as keys of a mapping, got {type(key).__name__} {key!r}")
    return key
