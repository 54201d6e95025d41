"""Choice among the shards of images by the parts of their keys."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from adv_detect.names import NATURAL, ShardKey

Names = str | Collection[str] | None
"""One name, several, or None for all."""


def select_keys(
    keys: Iterable[str], *, attack: Names, criterion: Names, split: Names, variant: Names, natural: bool | None
) -> tuple[str, ...]:
    """Choose keys of shards of images.

    Args:
        keys: What to choose from.
        attack: Configured names, or ``natural``.
        criterion: ``targeted``, ``untargeted``, ``none``.
        split: ``train``, ``validation``, ``test``.
        variant: ``float``, ``8bit``, ``noise``, ``benign`` (all benign changes) or ``benign/<change>``.
        natural: Whether the images are natural; None for both.

    Returns:
        The keys in the order in which attacks, then criteria, are given, then in their own.

    Raises:
        ValueError: One is no key of images.
    """
    found = []
    for text in keys:
        key = ShardKey.parse(text)
        ranks = (_rank(attack, key.attack), _rank(criterion, key.criterion))
        fits = _rank(split, key.split) is not None and natural in (None, key.attack == NATURAL)
        varied = any(_rank(variant, name) is not None for name in (key.variant, key.variant_kind))
        if fits and varied and None not in ranks:
            found.append((ranks, text))
    return tuple(text for _, text in sorted(found))


def _rank(wanted: Names, value: str) -> int | None:
    """Position of a value among those wanted, 0 where all are; None where it is none of them."""
    if wanted is None:
        return 0
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    return names.index(value) if value in names else None
