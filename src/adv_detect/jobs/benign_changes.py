"""Natural images after benign changes: which shards of activations to make, and how they are read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from adv_detect.algorithms.detectors import Activations
from adv_detect.errors import ConfigurationError, unknown_choice
from adv_detect.jobs.activation_plans import ActivationBlock
from adv_detect.jobs.activations import read_activations
from adv_detect.names import BENIGN, NATURAL, UNCHANGED, ShardKey
from adv_detect.params import EvaluationParams, ImageChangeParams, Split
from adv_detect.sharding import ShardStore, fingerprint

TESTED: tuple[Split, ...] = ("test",)


class ChangedImages(NamedTuple):
    """Natural images after one change.

    Attributes:
        activations: Of the changed images.
        label: Class of each, ``(n,)``.
        predicted: Class that the network gives the changed image, ``(n,)``.
        before: Class that it gives the unchanged image, ``(n,)``.
    """

    activations: Activations
    label: Tensor
    predicted: Tensor
    before: Tensor


def benign_blocks(
    adversarials: ShardStore,
    changes: Mapping[str, ImageChangeParams],
    *,
    seed: int,
    splits: Collection[Split] = TESTED,
) -> dict[str, ActivationBlock]:
    """List the shards ``benign/<change>/<split>-<number>``.

    Args:
        adversarials: Natural images among others.
        changes: The changes, by name.
        seed: Of noise.
        splits: Splits whose natural images are changed.

    Returns:
        What to pass through the network, by key.
    """
    return {
        ShardKey.parse(text)._replace(variant=f"{BENIGN}/{name}").text: ActivationBlock(
            shard=text, variant="benign", change=change, seed=int(fingerprint(seed, text)[:8], 16)
        )
        for name, change in changes.items()
        for text in adversarials.select(natural=True, split=splits)
    }


def chosen_changes(evaluation: EvaluationParams | None, names: Collection[str]) -> dict[str, ImageChangeParams]:
    """Choose the benign changes that detectors are trained against.

    Args:
        evaluation: All changes; None where there is no such block.
        names: Those that are asked for.

    Returns:
        The changes, in the order of the names.

    Raises:
        ConfigurationError: A change is unknown, or is kept out of training.
    """
    changes = evaluation.active_benign_changes if evaluation else {}
    for name in names:
        if name not in changes:
            raise unknown_choice("train_against: benign change of evaluation.benign_changes", name, changes)
        if not changes[name].train:
            raise ConfigurationError(
                f"train_against: {name!r} stands in evaluation.benign_changes with train: false, which keeps it "
                f"for the test; choose of [{', '.join(one for one, change in changes.items() if change.train)}]"
            )
    return {name: changes[name] for name in names}


def changed_images(
    natural: ShardStore, benign: ShardStore, changes: Collection[str], *, split: Split = "test"
) -> Iterator[tuple[str, ChangedImages]]:
    """Read the natural images of a split, unchanged and then change by change.

    Args:
        natural: Activations of unchanged images.
        benign: Activations of changed images.
        changes: Names of the changes.
        split: Which images.

    Yields:
        Name of the change, ``unchanged`` first, and the images; those without finite activations, changed or
        unchanged, are left out.
    """
    unchanged = natural.select(natural=True, split=split)
    before = _predictions(unchanged)
    yield UNCHANGED, _read(unchanged, before)
    for name in changes:
        yield name, _read(_changed(benign, name, split), before)


def read_change(natural: ShardStore, benign: ShardStore, change: str, *, split: Split = "test") -> ChangedImages:
    """Read the natural images of a split after one change, or ``unchanged``, as :func:`changed_images` gives them."""
    unchanged = natural.select(natural=True, split=split)
    changed = unchanged if change == UNCHANGED else _changed(benign, change, split)
    return _read(changed, _predictions(unchanged))


def _changed(benign: ShardStore, change: str, split: Split) -> ShardStore:
    return benign.select(variant=f"{BENIGN}/{change}", split=split)


def _predictions(unchanged: ShardStore) -> dict[int, int]:
    """Look up the class of each unchanged image, by source index."""
    stored = [content.tensors for content in unchanged.only("source_index", "predicted").values()]
    index, predicted = (torch.cat([one[name] for one in stored]).tolist() for name in ("source_index", "predicted"))
    return dict(zip(index, predicted, strict=True))


def _read(store: ShardStore, before: Mapping[int, int]) -> ChangedImages:
    contents = list(store.values())
    found = Activations.concatenate(read_activations(one, NATURAL) for one in contents)
    index, label, predicted = (
        torch.cat([one.tensors[name] for one in contents]) for name in ("source_index", "label", "predicted")
    )
    kept = torch.tensor([one in before for one in index.tolist()], dtype=torch.bool)
    known = torch.tensor([before[one] for one in index[kept].tolist()], dtype=predicted.dtype)
    return ChangedImages(found if bool(kept.all()) else found.select(kept), label[kept], predicted[kept], known)
