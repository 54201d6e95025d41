"""Division of source images into train, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from adv_detect.errors import DataError
from adv_detect.images import first_copies, members_by_class
from adv_detect.params import SPLITS, SplitParams

SMALLEST_STRATUM = 3


def split_sources(labels: NDArray[np.int64], *, params: SplitParams, seed: int) -> NDArray[np.str_]:
    """Give every source image one split.

    With ``by: source`` each class is divided in the configured proportions; with ``by: identity`` whole
    classes go to one split. With ``max_images`` a stratified draw of so many images takes part.

    Args:
        labels: Class of each source image, shape ``(N,)``.
        params: Proportions and mode.
        seed: Seed of the draw.

    Returns:
        Shape ``(N,)``: ``train``, ``validation``, ``test``, or an empty string for an image left out.

    Raises:
        DataError: Too few images or classes for three splits.
    """
    generator = np.random.default_rng(seed)
    chosen = _draw(labels, params.max_images, generator)
    result = np.full(len(labels), "", dtype="<U10")
    if params.by == "identity":
        classes = np.unique(labels[chosen])
        names = _partition(generator.permutation(classes), params, what="classes")
        for split, members in names.items():
            result[chosen[np.isin(labels[chosen], members)]] = split
        return result
    for split, members in _stratified(labels, chosen, params, generator).items():
        result[members] = split
    return result


def keep_copies_together(
    split: NDArray[np.str_], contents: Sequence[str], *, by: Literal["source", "identity"]
) -> NDArray[np.str_]:
    """Let no picture stand in two splits, also where it occurs more than once.

    Args:
        split: Split of each image, shape ``(N,)``, empty for an image left out.
        contents: Digest of each image.
        by: ``source`` moves a copy to the split of the first one that takes part; ``identity`` leaves it out where
            that is another split, since its class stands in one split only.

    Returns:
        The splits, shape ``(N,)``; the same ones where no image occurs twice.
    """
    taking_part = np.flatnonzero(split != "")
    first = taking_part[first_copies([contents[index] for index in taking_part.tolist()])]
    result = split.copy()
    result[taking_part] = split[first]
    if by == "identity":
        result[result != split] = ""
    return result


def _draw(labels: NDArray[np.int64], size: int | None, generator: np.random.Generator) -> NDArray[np.int64]:
    """Indices of a stratified draw: class shares differ from the whole by at most one image."""
    order = interleave(labels, generator)
    return np.sort(order if size is None else order[:size])


def interleave(labels: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Put images into a random order whose every prefix is stratified.

    Args:
        labels: Class of each image, shape ``(N,)``.
        generator: Source of the order.

    Returns:
        Indices ``(N,)``: among the first n, a class holds its share of n up to about one image.
    """
    shuffled = generator.permutation(len(labels))
    position = np.empty(len(labels))
    for rows in members_by_class(labels[shuffled]).values():
        position[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return shuffled[np.argsort(position, kind="stable")]


def _stratified(
    labels: NDArray[np.int64], chosen: NDArray[np.int64], params: SplitParams, generator: np.random.Generator
) -> dict[str, NDArray[np.int64]]:
    order = chosen[interleave(labels[chosen], generator)]
    return _partition(order, params, what="images")


def _partition(members: NDArray[np.int64], params: SplitParams, *, what: str) -> dict[str, NDArray[np.int64]]:
    """Cut a sequence into three runs; every split gets at least one member."""
    if len(members) < SMALLEST_STRATUM:
        raise DataError(f"splits: expected at least {SMALLEST_STRATUM} {what} to divide, got {len(members)}")
    n_train = min(max(round(params.train * len(members)), 1), len(members) - 2)
    n_validation = min(max(round(params.validation * len(members)), 1), len(members) - n_train - 1)
    runs = np.split(members, [n_train, n_train + n_validation])
    return dict(zip(SPLITS, runs, strict=True))
