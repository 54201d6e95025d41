"""Draws verification pairs from labelled images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adv_detect.errors import DataError
from adv_detect.measures.faces.pairs import LocatedPairs, Pair, fold_sizes

Positions = list[tuple[int, int]]
MIN_IDENTITIES = 2
"""Identities that a fold needs: different people must be found in it."""


def draw_pairs(
    labels: NDArray[np.int64], n: int, *, source_ids: Sequence[str], seed: int, folds: int = 10
) -> LocatedPairs:
    """Draw pairs in the manner of the LFW protocol.

    Folds share no identity. Within a fold half of the pairs show the same person, identities taking turns so that
    none dominates; the other half show two different people, drawn evenly over identities. No pair comes twice.

    Args:
        labels: Identity of each image, shape ``(N,)``.
        n: Number of pairs, both kinds together; even.
        source_ids: Name of each image.
        seed: Seed of the draw.
        folds: Number of folds.

    Returns:
        The pairs; none is missing.

    Raises:
        ConfigurationError: Fewer pairs of a kind than folds.
        DataError: An odd number of pairs, or not enough images or identities for them.
    """
    if n % 2 or len(labels) != len(source_ids):
        raise DataError(f"expected an even n and a source id per label, got n={n}, {len(labels)}, {len(source_ids)}")
    generator = np.random.default_rng(seed)
    pairs, positions = [], []
    for fold, (size, members) in enumerate(
        zip(fold_sizes(n // 2, folds), _members(labels, folds, generator), strict=True)
    ):
        same, different = _same(members, size, generator), _different(members, size, generator)
        positions += same + different
        pairs += [Pair(source_ids[a], source_ids[b], True, fold) for a, b in same]
        pairs += [Pair(source_ids[a], source_ids[b], False, fold) for a, b in different]
    first, second = zip(*positions, strict=True)
    return LocatedPairs(tuple(pairs), tuple(first), tuple(second), ())


def _members(labels: NDArray[np.int64], folds: int, generator: np.random.Generator) -> list[list[NDArray[np.int64]]]:
    """Deal identities out to folds, those with most images first; image positions per identity and fold."""
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < MIN_IDENTITIES * folds:
        raise DataError(
            f"expected at least {MIN_IDENTITIES} identities per fold, got {len(classes)} for {folds} folds; ask for "
            "fewer folds"
        )
    order = generator.permutation(len(classes))
    order = order[np.argsort(-counts[order], kind="stable")]
    dealt: list[list[NDArray[np.int64]]] = [[] for _ in range(folds)]
    for turn, index in enumerate(order):
        dealt[turn % folds].append(np.flatnonzero(labels == classes[index]))
    return dealt


def _same(members: list[NDArray[np.int64]], size: int, generator: np.random.Generator) -> Positions:
    """Draw pairs of one person each, identities taking turns."""
    capacity = np.array([len(images) * (len(images) - 1) // 2 for images in members])
    _check(int(capacity.sum()), size, "same person")
    quota = _even_shares(capacity, size, generator)
    result: Positions = []
    for images, take, room in zip(members, quota, capacity, strict=True):
        for code in generator.choice(room, take, replace=False) if take else ():
            larger = int((1 + np.sqrt(1 + 8 * code)) // 2)
            smaller = int(code - larger * (larger - 1) // 2)
            result.append((int(images[smaller]), int(images[larger])))
    return result


def _even_shares(capacity: NDArray[np.int64], size: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Give each identity as equal a number of pairs as its images allow; numbers add up to ``size``."""
    shares = np.zeros(len(capacity), dtype=np.int64)
    while (left := size - int(shares.sum())) > 0:
        open_ = generator.permutation(np.flatnonzero(shares < capacity))
        each = max(left // len(open_), 1)
        chosen = open_ if left >= len(open_) else open_[:left]
        shares[chosen] = np.minimum(shares[chosen] + each, capacity[chosen])
    return shares


def _different(members: list[NDArray[np.int64]], size: int, generator: np.random.Generator) -> Positions:
    """Draw pairs of two people each."""
    counts = np.array([len(images) for images in members])
    room = int((counts.sum() ** 2 - (counts**2).sum()) // 2)
    _check(room, size, "different people")
    if room <= 2 * size:
        return _different_from_all(members, size, generator)
    drawn: dict[tuple[int, int], None] = {}
    while len(drawn) < size:
        one, two = generator.choice(len(members), 2, replace=False)
        a, b = int(generator.choice(members[one])), int(generator.choice(members[two]))
        if (b, a) not in drawn:
            drawn[(a, b)] = None
    return list(drawn)


def _different_from_all(members: list[NDArray[np.int64]], size: int, generator: np.random.Generator) -> Positions:
    """Draw from the list of all pairs, when so many are wanted that drawing anew would take long."""
    every = [
        (int(a), int(b))
        for index, images in enumerate(members)
        for a in images
        for others in members[index + 1 :]
        for b in others
    ]
    return [every[row] for row in generator.choice(len(every), size, replace=False)]


def _check(room: int, size: int, kind: str) -> None:
    if room < size:
        raise DataError(
            f"expected at least {size} different pairs of {kind} in a fold, got {room}; ask for fewer pairs"
        )
