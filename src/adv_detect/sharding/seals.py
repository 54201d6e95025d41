"""Digests that travel inside of a file and tell whether it is still what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adv_detect.errors import DamagedFileError
from adv_detect.sharding.digests import tensor_digest

CONTENT = "content"
DIGEST = "sha256"
NO_DIGEST = "it holds no digest, so it is of another origin or of an older version"
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64",
}  # fmt: skip
"""Name of each dtype in the header of a safetensors file."""


@dataclass(frozen=True)
class Seal:
    """Content of the header of a safetensors file beside names and shapes.

    Attributes:
        metadata: Text by name.
        digests: Digest of each tensor's bytes by its name.
    """

    metadata: dict[str, str]
    digests: dict[str, str]


def sealed_metadata(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Join metadata and digests into one text of a header, and a digest over them, names, dtypes and shapes.

    Args:
        tensors: Tensors by name, on the CPU.
        metadata: Text by name.

    Returns:
        JSON.
    """
    digests = {name: tensor_digest(tensor) for name, tensor in tensors.items()}
    described = {name: (DTYPES[tensor.dtype], list(tensor.shape)) for name, tensor in tensors.items()}
    sealed = {"metadata": dict(metadata), "digests": digests}
    return json.dumps(sealed | {DIGEST: _header_digest(sealed, described)}, sort_keys=True)


def opened_metadata(content: object, described: Mapping[str, tuple[str, list[int]]], path: str) -> Seal:
    """Read what :func:`sealed_metadata` wrote.

    Args:
        content: Text metadata of a header.
        described: Dtype, as the header names it, and shape of each tensor.
        path: The file, for errors.

    Returns:
        Metadata and digests.

    Raises:
        DamagedFileError: There is no digest, or it is another one.
    """
    text = content.get(CONTENT) if isinstance(content, dict) else None
    if text is None:
        raise DamagedFileError(path, NO_DIGEST)
    try:
        sealed = json.loads(text)
        found = sealed.pop(DIGEST)
        seal = Seal(sealed["metadata"], sealed["digests"])
    except (ValueError, AttributeError, KeyError, TypeError) as exc:
        raise DamagedFileError(path, "unreadable header") from exc
    if found != _header_digest(sealed, described) or seal.digests.keys() != described.keys():
        raise DamagedFileError(path, "the digest of its header is another one")
    return seal


def sealed_json(content: Mapping[str, Any]) -> bytes:
    """Write JSON that ends in a digest of all before.

    Args:
        content: JSON-able values by name.

    Returns:
        The whole file.
    """
    digest = hashlib.sha256(json.dumps(content, indent=1).encode()).hexdigest()
    return json.dumps({**content, DIGEST: digest}, indent=1).encode()


def opened_json(raw: bytes, path: str) -> dict[str, Any]:
    """Read what :func:`sealed_json` wrote.

    Args:
        raw: The whole file.
        path: Its path, for errors.

    Returns:
        The content without the digest.

    Raises:
        DamagedFileError: It is no JSON, there is no digest, or it is another one.
    """
    try:
        content = json.loads(raw)
    except ValueError as exc:
        raise DamagedFileError(path, str(exc)) from exc
    if not isinstance(content, dict) or DIGEST not in content:
        raise DamagedFileError(path, NO_DIGEST)
    plain = {name: value for name, value in content.items() if name != DIGEST}
    if sealed_json(plain) != raw:
        raise DamagedFileError(path, "its digest is another one")
    return plain


def _header_digest(sealed: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([sealed, described], sort_keys=True).encode()).hexdigest()
