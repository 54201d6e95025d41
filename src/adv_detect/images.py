"""What every image set offers, and how a batch of it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UINT8_MAX = 255.0


@runtime_checkable
class ImageSet(Protocol):
    """A map-style image set that knows its labels without decoding an image.

    Attributes:
        class_names: Name of each class; the label is the index.
        source_ids: A stable, unique name per image.
        labels: Labels, int64, shape ``(N,)``.
    """

    class_names: tuple[str, ...]
    source_ids: Sequence[str]
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return image ``(channels, H, W)``, uint8 or float in [0, 1], and its label."""
        ...


def members_by_class(labels: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """Find the images of each class in one pass, however many classes there are.

    Args:
        labels: Labels, int64, shape ``(N,)``.

    Returns:
        Positions in ascending order by label, for the labels that occur, in ascending order.
    """
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    return dict(zip(classes.tolist(), np.split(order, starts[1:]), strict=True)) if len(labels) else {}


def load_images(images: ImageSet, indices: Sequence[int], bounds: tuple[float, float]) -> Tensor:
    """Read images into the pixel range of a network.

    Args:
        images: The set to read from; where it has a method ``read_many``, indices to images, that is used.
        indices: Which images, in the order wanted.
        bounds: Lowest and highest pixel value of the network.

    Returns:
        Float32 images ``(n, channels, H, W)`` within ``bounds``.
    """
    low, high = bounds
    read_many = getattr(images, "read_many", None)
    batch = read_many(indices) if read_many else torch.stack([images[int(index)][0] for index in indices])
    unit = batch.to(torch.float32) / UINT8_MAX if batch.dtype == torch.uint8 else batch.to(torch.float32)
    return low + unit * (high - low)
