"""Stored activations, shard by shard, as detectors read them."""

from __future__ import annotations

from collections.abc import Iterable

from adv_detect.algorithms.detectors import Activations, Reads
from adv_detect.errors import DataError
from adv_detect.names import NATURAL, ShardKey
from adv_detect.sharding import ShardContent, ShardStore, fingerprint

LOGITS, FEATURES, VIEWS, TWIN = "logits", "features.", "views.", "twin"
PARTS, BASE = "parts", "base"
"""In the facts of a shard with views or a twin: fingerprints of its parts, and the name of all that is neither."""


def read_fingerprint(store: ShardStore, key: str, reads: Reads) -> str | None:
    """Give a fingerprint of what a detector reads of a shard.

    Args:
        store: Shards of activations.
        key: Which one.
        reads: What it reads.

    Returns:
        A fingerprint that covers these views, and the twin where it is read, and no others; None where the shard has
        none.
    """
    parts = store.metadata(key).get(PARTS)
    further = [*(f"{VIEWS}{name}" for name in sorted(reads.views)), *([TWIN] if reads.twin else [])]
    if parts is None and not further:
        return store.fingerprint(key)
    held = parts or {}
    read = {name: held.get(name) for name in further}
    return fingerprint(held.get(BASE), read) if read else held.get(BASE)


def read_activations(content: ShardContent, group: str = "") -> Activations:
    """Take the activations out of a shard.

    Args:
        content: A shard that :class:`adv_detect.jobs.activation_plans.ActivationWork` made.
        group: Group of its rows; empty where it does not matter.

    Returns:
        Its activations, layers in network order as stored.
    """
    tensors = content.tensors
    return Activations(
        logits=tensors[LOGITS],
        features={name: tensors[f"{FEATURES}{name}"] for name in content.metadata["layers"]},
        views={name: tensors[f"{VIEWS}{name}"] for name in content.metadata.get("views", ())},
        twin=tensors.get(TWIN),
        groups=(group,) * len(tensors[LOGITS]) if group else (),
        sources=tensors.get("source_index"),
    )


def natural_activations(store: ShardStore, split: str) -> Activations:
    """Read the natural images of a split.

    Args:
        store: Shards of activations.
        split: ``train``, ``validation`` or ``test``.

    Returns:
        Their activations.

    Raises:
        DataError: There are none.
    """
    natural = store.select(split=split, natural=True)
    if not natural:
        raise DataError(f"activations: no natural images of the {split} split; run the pipeline detector_training")
    return Activations.concatenate(read_activations(content, NATURAL) for content in natural.values())


def successful_attacks(
    store: ShardStore, *, split: str, attacks: Iterable[str], criteria: Iterable[str]
) -> Activations | None:
    """Read the successes of some attacks.

    Args:
        store: Shards of activations.
        split: ``train``, ``validation`` or ``test``.
        attacks: Configured names.
        criteria: Criteria of the attacks.

    Returns:
        Their activations with groups ``<attack>/<criterion>``; None where there is no such shard.
    """
    attacked = store.select(split=split, attack=tuple(attacks), criterion=tuple(criteria))
    parts = [
        read_activations(content, ShardKey.parse(key).group).select(content.tensors["success"])
        for key, content in attacked.items()
    ]
    return Activations.concatenate(parts) if parts else None
