"""Seeded, stratified choice of images; the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adv_detect.errors import ConfigurationError, DataError
from adv_detect.images import Contents, ImageSet, first_copies, image_contents, members_by_class
from adv_detect.sharding import fingerprint

REMAINDER = "train"  # the part that takes what the others leave


class ImageSubset:
    """Some images of a set, in the order given.

    Args:
        images: The whole set.
        indices: Which images.

    Attributes:
        class_names: Name of each class.
        source_ids: Name of each image.
        labels: Labels, int64, shape ``(N,)``.
        pictures: The way of the set's picture files, where it says so.
    """

    def __init__(self, images: ImageSet, indices: Sequence[int]) -> None:
        self._images = images
        self._indices = [int(index) for index in indices]
        self.class_names = images.class_names
        self.pictures = getattr(images, "pictures", None)
        self.source_ids: Sequence[str] = tuple(images.source_ids[index] for index in self._indices)
        self.labels = images.labels[torch.tensor(self._indices, dtype=torch.int64)]

    @property
    def identity(self) -> str:
        """Digest of what decides the pixels and labels."""
        return self.identity_of(range(len(self)))

    def identity_of(self, indices: Sequence[int]) -> str:
        """Digest what decides the pixels and labels of some of the images."""
        chosen = [self._indices[index] for index in indices]
        if identity_of := getattr(self._images, "identity_of", None):
            return str(identity_of(chosen))
        names, labels = [self._images.source_ids[index] for index in chosen], self._images.labels[chosen]
        whole = getattr(self._images, "identity", None)
        pixels = () if whole else (image_contents(self._images, chosen).digests,)
        return fingerprint(whole or type(self._images).__name__, names, labels, *pixels)

    def contents(self, indices: Sequence[int] | None = None) -> Contents:
        """Return the digest of each image, or of some."""
        chosen = range(len(self)) if indices is None else indices
        return image_contents(self._images, [self._indices[index] for index in chosen])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return image ``(channels, H, W)`` and its label."""
        return self._images[self._indices[index]]

    def read_many(self, indices: Sequence[int]) -> Tensor:
        """Return several images ``(n, channels, H, W)``."""
        chosen = [self._indices[int(index)] for index in indices]
        whole = getattr(self._images, "read_many", None)
        return whole(chosen) if whole else torch.stack([self._images[index][0] for index in chosen])


def stratified_subset(images: ImageSet, max_images: int | None, *, seed: int) -> ImageSet:
    """Draw images so that each class keeps its share.

    A smaller draw is part of a larger one with the same seed; no class is empty while ``max_images`` is at least
    the number of classes.

    Args:
        images: The whole set.
        max_images: How many at most; None for all.
        seed: Of the draw.

    Returns:
        The drawn images in the order of the set, or the set itself when it is small enough.

    Raises:
        ConfigurationError: ``max_images`` is below 1.
    """
    if max_images is not None and max_images < 1:
        raise ConfigurationError(f"max_images: expected at least 1 or null, got {max_images}")
    if max_images is None or max_images >= len(images):
        return images
    positions = np.empty(len(images))
    for members in shuffled_classes(images.labels.numpy(), seed=seed):
        positions[members] = np.arange(len(members)) / len(members)
    chosen = np.lexsort((images.labels.numpy(), positions))[:max_images]
    return ImageSubset(images, np.sort(chosen).tolist())


def stratified_part(
    labels: Tensor,
    part: str,
    fractions: Mapping[str, float],
    *,
    seed: int,
    class_names: Sequence[str],
    contents: Sequence[str] | None = None,
) -> list[int]:
    """Divide each class into parts and return one of them.

    Parts of one seed and the same fractions are disjoint and together the whole; each holds at least one image of
    each class. Images of the same content stand in one part, whatever their class.

    Args:
        labels: Labels, int64, shape ``(N,)``.
        part: ``train``, or a key of ``fractions``.
        fractions: Share of each part other than ``train``, in [0, 1).
        seed: Of the division.
        class_names: Name of each class, for errors.
        contents: Digest of each image; None where all differ.

    Returns:
        Indices in ascending order.

    Raises:
        ConfigurationError: The part has no share, or the shares leave nothing for ``train``.
        DataError: A class has fewer images than there are parts.
    """
    check_part(part, fractions)
    shares = {name: share for name, share in fractions.items() if share > 0}
    first = first_copies(contents) if contents else np.arange(len(labels))
    chosen: list[int] = []
    for label, everyone in zip(np.unique(labels.numpy()), shuffled_classes(labels.numpy(), seed=seed), strict=True):
        members = everyone[first[everyone] == everyone]
        if len(members) <= len(shares):
            raise _too_few(class_names[label], len(members), [REMAINDER, *shares])
        chosen.extend(_cut(members, shares)[part].tolist())
    found: list[int] = np.flatnonzero(np.isin(first, chosen)).tolist()
    return found


def shuffled_classes(labels: NDArray[np.int64], *, seed: int) -> list[NDArray[np.int64]]:
    """Shuffle the images of each class by a generator of its own, so that classes do not depend on each other.

    Args:
        labels: Labels, int64, shape ``(N,)``.
        seed: Of the order.

    Returns:
        Indices of each class that occurs, in ascending order of the label.
    """
    return [
        np.random.default_rng([seed, label]).permutation(members) for label, members in members_by_class(labels).items()
    ]


def check_part(part: str, fractions: Mapping[str, float]) -> None:
    """Refuse a part that cannot hold anything.

    Args:
        part: ``train``, or a key of ``fractions``.
        fractions: Share of each part other than ``train``, in [0, 1).

    Raises:
        ConfigurationError: The part has no share, or the shares leave nothing for ``train``.
    """
    if any(share < 0 for share in fractions.values()) or sum(fractions.values()) >= 1:
        raise ConfigurationError(f"fractions: expected non-negative shares below 1 in all, got {dict(fractions)}")
    parts = [REMAINDER, *(name for name, share in fractions.items() if share > 0)]
    if part not in parts:
        raise ConfigurationError(
            f"part: expected one of {parts}, got {part!r}; each part but {REMAINDER} needs a fraction above 0, "
            f"got {dict(fractions)}"
        )


def _cut(members: NDArray[np.int64], shares: Mapping[str, float]) -> dict[str, NDArray[np.int64]]:
    """Cut one shuffled class; every part, the remainder too, gets at least one image."""
    parts, start = {}, 0
    for later, (name, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
        free = len(members) - start - later  # one image is left to each part that follows
        size = min(max(1, round(share * len(members))), free)
        parts[name] = members[start : start + size]
        start += size
    return parts | {REMAINDER: members[start:]}


def _too_few(name: str, count: int, parts: Sequence[str]) -> DataError:
    return DataError(
        f"class {name!r} has {count} image{'' if count == 1 else 's'}, but each of the parts {list(parts)} needs one; "
        f"add images, remove the class, or leave it out with min_images_per_class: {len(parts)}"
    )
