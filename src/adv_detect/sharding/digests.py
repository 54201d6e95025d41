"""Digests of tensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def tensor_bytes(tensor: Tensor) -> memoryview:
    """View the bytes of a tensor as they lie in a file; it is copied only from another device or order."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def tensor_digest(tensor: Tensor) -> str:
    """Return the SHA-256 of the bytes of a tensor, 64 hexadecimal digits."""
    return hashlib.sha256(tensor_bytes(tensor)).hexdigest()


def tensors_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Digest tensors by name, whatever their order, with their metadata.

    Args:
        tensors: Of any shapes and dtypes, which count.
        metadata: JSON-able values by name.

    Returns:
        SHA-256, 64 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
