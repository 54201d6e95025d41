"""Protocol of image sets, reading of batches, and digests of images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adv_detect.errors import DataError
from adv_detect.sharding.fingerprints import fingerprint

UINT8_MAX = 255.0
"""Largest value of a pixel of eight bits."""
DIGEST_DIGITS = 32  # hexadecimal, of SHA-256
BLOCK = 1000  # images read at once for their digests


@runtime_checkable
class ImageSet(Protocol):
    """A map-style image set that gives its labels without decoding an image.

    It may also offer ``read_many``, indices to images ``(n, channels, H, W)``; ``contents``, indices or None to
    :class:`Contents`, which tells images apart more cheaply than all their pixels do; and ``identity``, text
    that changes with anything that decides pixels or labels; and ``pictures``, the
    :class:`~adv_detect.pictures.Transform` that its picture files go through, which the network's description keeps.

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
    return in_bounds(_read_many(images, indices), bounds)


def in_bounds(batch: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Bring images into a pixel range.

    Args:
        batch: Shape ``(n, channels, H, W)``, uint8, or numbers in [0, 1].
        bounds: Lowest and highest pixel value.

    Returns:
        Float32 images within ``bounds``.

    Raises:
        DataError: They are of another type, or outside [0, 1].
    """
    low, high = bounds
    unit = batch.to(torch.float32) / UINT8_MAX if batch.dtype == torch.uint8 else _checked_unit(batch)
    return low + unit * (high - low)


def content_digest(content: bytes) -> str:
    """Digest bytes: the first 128 bits of SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:DIGEST_DIGITS]


class Contents(NamedTuple):
    """Digests of the images of a set.

    Attributes:
        form: What was digested: the bytes of a ``file``, or its ``pixels``; only like is compared with like.
        digests: One digest per image.
    """

    form: Literal["file", "pixels"]
    digests: tuple[str, ...]


def image_contents(images: ImageSet, indices: Sequence[int] | None = None) -> Contents:
    """Digest the content of images, as their set does, or else by their pixels.

    Args:
        images: The set.
        indices: Which images; None for all.

    Returns:
        One digest per image; images of equal content have the same.
    """
    own = getattr(images, "contents", None)
    contents: Contents = own(indices) if own else pixel_contents(images, indices)
    return contents


def pixel_contents(images: ImageSet, indices: Sequence[int] | None = None) -> Contents:
    """Digest pixels; all images asked for are read.

    Args:
        images: The set.
        indices: Which images; None for all.

    Returns:
        One digest per image.
    """
    chosen = range(len(images)) if indices is None else indices
    digests: list[str] = []
    for start in range(0, len(chosen), BLOCK):
        batch = _read_many(images, chosen[start : start + BLOCK]).contiguous()
        head = f"{batch.dtype}{tuple(batch.shape[1:])}".encode()
        rows = batch.reshape(len(batch), -1).view(torch.uint8).numpy()
        digests.extend(hashlib.sha256(head + row.tobytes()).hexdigest()[:DIGEST_DIGITS] for row in rows)
    return Contents("pixels", tuple(digests))


def first_copies(digests: Sequence[str]) -> NDArray[np.int64]:
    """Find the first image of the same content.

    Args:
        digests: Digest of each image.

    Returns:
        Position of the first image with the same digest, for each, shape ``(N,)``; its own where it has no copy
        before it.
    """
    first: dict[str, int] = {}
    return np.array([first.setdefault(digest, index) for index, digest in enumerate(digests)], dtype=np.int64)


def _read_many(images: ImageSet, indices: Sequence[int]) -> Tensor:
    read_many = getattr(images, "read_many", None)
    batch: Tensor = read_many(indices) if read_many else torch.stack([images[int(index)][0] for index in indices])
    return batch


def _checked_unit(batch: Tensor) -> Tensor:
    if not batch.is_floating_point():
        raise DataError(f"expected images as uint8, or as numbers in [0, 1], got {batch.dtype}; convert them to uint8")
    if batch.numel() and not bool(((batch >= 0) & (batch <= 1)).all()):  # also where one is not a number
        raise DataError(
            f"expected images of numbers in [0, 1], got {float(batch.min()):g} to {float(batch.max()):g}; scale them"
        )
    return batch.to(torch.float32)


def shape_of(images: ImageSet) -> tuple[int, int, int]:
    """Read channels, height and width off the first image of a set."""
    channels, height, width = images[0][0].shape
    return channels, height, width


def image_set_identity(images: ImageSet) -> str:
    """Identify an image set by what it says of itself, or else by its source ids, labels, class names and pixels."""
    if own := getattr(images, "identity", None):
        return str(own)
    return fingerprint(list(images.source_ids), images.labels, list(images.class_names), image_contents(images).digests)
