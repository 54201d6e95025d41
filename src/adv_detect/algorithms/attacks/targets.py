"""Target classes of targeted attacks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
FIRST_MIX = 0xBF58476D1CE4E5B9
SECOND_MIX = 0x94D049BB133111EB
WORD = 0xFFFFFFFFFFFFFFFF


def draw_targets(labels: Tensor, num_classes: int, *, seed: int, source_indices: Tensor) -> Tensor:
    """Draw a wrong class for each source image, uniformly over the other classes.

    The draw of an image depends on the seed and on its own source index alone, so it stays the same however
    the images are divided into batches, shards or workers.

    Args:
        labels: True classes, int64 ``(N,)``.
        num_classes: Number of classes C, at least 2.
        seed: Any integer.
        source_indices: Positions of the images in their set, int64 ``(N,)``.

    Returns:
        Target classes, int64 ``(N,)``, never the label, on the labels' device.

    Raises:
        ValueError: With fewer than two classes, labels out of range, or shapes that differ.
    """
    _check(labels, num_classes, source_indices)
    words = _hash(source_indices.detach().cpu().numpy().astype(np.uint64), seed)
    steps = torch.from_numpy((words % np.uint64(num_classes - 1)).astype(np.int64)).to(labels.device)
    return (labels + 1 + steps) % num_classes


def _check(labels: Tensor, num_classes: int, source_indices: Tensor) -> None:
    if num_classes < 2:
        raise ValueError(f"num_classes: expected at least 2 for a targeted attack, got {num_classes}")
    if labels.shape != source_indices.shape or labels.ndim != 1:
        raise ValueError(
            f"expected labels and source_indices of one shape (N,), got {tuple(labels.shape)} "
            f"and {tuple(source_indices.shape)}"
        )
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(f"expected labels in 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}")


def _hash(indices: np.ndarray, seed: int) -> np.ndarray:
    """Mix each index with the seed into 64 evenly distributed bits (SplitMix64, Steele et al. 2014)."""
    start = np.uint64(_mix(np.array([seed & WORD], dtype=np.uint64))[0])
    with np.errstate(over="ignore"):
        return _mix(start + (indices + np.uint64(1)) * np.uint64(GOLDEN_GAMMA))


def _mix(words: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        words = (words ^ (words >> np.uint64(30))) * np.uint64(FIRST_MIX)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(SECOND_MIX)
    mixed: np.ndarray = words ^ (words >> np.uint64(31))
    return mixed
