"""Nodes that attack the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from adv_detect.algorithms.attacks.construction import attack_source, build_attack
from adv_detect.algorithms.representatives import Representatives, representatives_digest
from adv_detect.algorithms.splits import interleave, keep_copies_together
from adv_detect.algorithms.splits import split_sources as divide
from adv_detect.images import ImageSet, image_contents, image_set_identity
from adv_detect.jobs.records import log_non_finite, with_tested_forms
from adv_detect.names import NATURAL, NO_CRITERION, TARGETED
from adv_detect.networks.target import TargetNetwork, target_digest
from adv_detect.params import (
    SPLITS,
    AdversarialGenerationParams,
    AttackParams,
    DetectorTrainingParams,
    RuntimeParams,
    Split,
    SplitParams,
)
from adv_detect.pipelines.adversarial_generation.attack_shards import (
    AdversarialWork,
    SourceBlock,
    guide_images,
)
from adv_detect.sharding import ShardPlan, ShardSpec, ShardStore, fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

RECORD_TENSORS = {
    "label": "original_class",
    "target": "target_class",
    "adversarial_class": "adversarial_class",
    "predicted": "predicted",
    "success": "success",
    "l2": "l2",
    "linf": "linf",
    "margin": "margin",
    "gradient_evaluations": "gradient_evaluations",
    "source_index": "source_index",
    "non_finite": "non_finite",
}
SEED_RANGE = 2**31
FEWEST_AIMS = 2


def split_sources(test_images: ImageSet, splits: SplitParams, runtime: RuntimeParams) -> pd.DataFrame:
    """Divide the source images into train, validation and test, once for everything that follows.

    Args:
        test_images: The images to attack; the network was not trained on them.
        splits: Proportions and mode.
        runtime: Seed.

    Returns:
        One row per image taking part: ``source_index``, ``source_id``, ``label``, ``class_name``, ``split``.
    """
    labels = test_images.labels.numpy()
    split = divide(labels, params=splits, seed=runtime.seed)
    split = keep_copies_together(split, image_contents(test_images).digests, by=splits.by)
    rows = np.flatnonzero(split != "")
    return pd.DataFrame(
        {
            "source_index": rows,
            "source_id": [test_images.source_ids[row] for row in rows.tolist()],
            "label": labels[rows],
            "class_name": [test_images.class_names[label] for label in labels[rows]],
            "split": split[rows],
        }
    )


def generate_adversarials(
    test_images: ImageSet,
    network_weights: TargetNetwork,
    representatives: Representatives,
    source_splits: pd.DataFrame,
    adversarial_generation: AdversarialGenerationParams,
    runtime: RuntimeParams,
    detector_training: DetectorTrainingParams,
) -> ShardPlan:
    """Plan all attacks, shard by shard, and the unattacked images beside them.

    Args:
        test_images: The source images.
        network_weights: The network under attack.
        representatives: Class representatives, for attacks on deep features.
        source_splits: The split of each source image.
        adversarial_generation: The attacks.
        runtime: Seed, shard size, batch size, device, engine.
        detector_training: The detectors: confident attacks on training and validation images are made where one learns
            from such.

    Returns:
        A plan with the shards ``natural/<split>-<number>`` and ``<attack>/<criterion>/<split>-<number>``.
    """
    attacks = adversarial_generation.active
    splits = {name: adversarial_generation.splits_of(name, detector_training.asked_forms) for name in attacks}
    built = {name: build_attack(name, attack) for name, attack in attacks.items()}
    for one in built.values():  # a wrong guide ends the run here, not hours later
        guide_images(one.guides, test_images, network_weights.spec.bounds)
    reading = {name for name, one in built.items() if one.needs_representatives}
    work = AdversarialWork(test_images, network_weights, representatives, attacks, runtime)
    made_from = (target_digest(network_weights, layers=False), image_set_identity(test_images))
    classes = representatives_digest(representatives)
    sources = {name: attack_source(name, attack) for name, attack in attacks.items()}
    shards = tuple(
        ShardSpec(
            key=key,
            fingerprint=fingerprint(
                made_from,
                block.indices,
                [test_images.source_ids[index] for index in block.indices],
                block.seed,
                block.aims,
                _what_matters(attacks.get(block.attack), runtime),
                sources.get(block.attack),
                classes if block.attack in reading else None,
                block.criterion,
            ),
            arguments=block,
        )
        for key, block in _blocks(source_splits, attacks, splits, runtime)
    )
    return ShardPlan(work=work, shards=shards, runtime=runtime, description="adversarials", one_thread=True)


def collect_records(
    adversarials: ShardStore, adversarial_generation: AdversarialGenerationParams
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Gather the record of each image from the shards.

    Args:
        adversarials: The finished shards.
        adversarial_generation: The attacks, to tell unseen ones apart.

    Returns:
        ``attack_records``, a row per source image x attack x criterion, naturals included (attack ``natural``):
        source_id, source_index, attack, criterion, form, split, original_class, target_class (-1: none),
        adversarial_class, predicted (-1: logits not finite), success, l2, linf, margin, gradient_evaluations,
        non_finite (failed because a gradient, a logit or a pixel became NaN or infinite), seed, shard, row;
        and ``attack_timings``, a row per shard with its seconds.
    """
    frames, timings = [], []
    for key, content in adversarials.only(*RECORD_TENSORS).items():
        facts = {name: content.metadata[name] for name in ("attack", "criterion", "form", "split", "seed")}
        columns = {column: content.tensors[name].numpy() for name, column in RECORD_TENSORS.items()}
        count = len(content.metadata["source_ids"])
        frames.append(
            pd.DataFrame(
                {"source_id": content.metadata["source_ids"], **facts, **columns, "shard": key, "row": range(count)}
            )
        )
        timings.append(facts | {"shard": key, "images": count, "seconds": content.metadata["seconds"]})
    records = with_tested_forms(pd.concat(frames, ignore_index=True), adversarial_generation)
    log_non_finite(records, "attack_records")
    return records, pd.DataFrame(timings)


def _what_matters(attack: AttackParams | None, runtime: RuntimeParams) -> tuple[object, ...]:
    """Parameters that change the images of a shard."""
    if attack is None:
        return (NATURAL,)
    return (attack.attack, attack.norm, attack.epsilon, attack.arguments, attack.return_early, _batch(attack, runtime))


def _batch(attack: AttackParams, runtime: RuntimeParams) -> int:
    return attack.batch_size or runtime.batch_size


def _blocks(
    source_splits: pd.DataFrame,
    attacks: dict[str, AttackParams],
    splits: dict[str, tuple[Split, ...]],
    runtime: RuntimeParams,
) -> Iterator[tuple[str, SourceBlock]]:
    members = {split: _members(source_splits, split, runtime.seed) for split in SPLITS}
    aims = _aims(source_splits)
    for split in SPLITS:
        yield from _cut(members[split], f"{NATURAL}/{split}", (NATURAL, NO_CRITERION, split), runtime)
    for name, attack in attacks.items():
        for criterion in attack.criteria:
            for split in splits[name]:
                chosen = members[split][: attack.limit(split)]
                group = (name, criterion, split)
                yield from _cut(chosen, "/".join(group), group, runtime, aims[split] if criterion == TARGETED else None)


def _members(source_splits: pd.DataFrame, split: Split, seed: int) -> list[int]:
    """Positions of a split's images; the first n of them, which a limited attack takes, are a stratified draw."""
    rows = source_splits[source_splits["split"] == split]
    order = interleave(rows["label"].to_numpy(), np.random.default_rng(seed))
    members: list[int] = rows["source_index"].to_numpy()[order].tolist()
    return members


def _aims(source_splits: pd.DataFrame) -> dict[Split, tuple[int, ...] | None]:
    """Classes that targeted attacks of a split may aim at, None for all.

    Where splits share no class (``splits.by: identity``) an attack must not imitate a person of another split either.
    """
    classes = {split: set(source_splits.loc[source_splits["split"] == split, "label"].tolist()) for split in SPLITS}
    apart = sum(map(len, classes.values())) == len(set().union(*classes.values()))
    if not apart or min(map(len, classes.values())) < FEWEST_AIMS:
        return dict.fromkeys(SPLITS)
    return {split: tuple(sorted(found)) for split, found in classes.items()}


def _cut(
    members: Sequence[int],
    prefix: str,
    group: tuple[str, str, Split],
    runtime: RuntimeParams,
    aims: tuple[int, ...] | None = None,
) -> Iterator[tuple[str, SourceBlock]]:
    attack, criterion, split = group
    for number, start in enumerate(range(0, len(members), runtime.shard_size)):
        key = f"{prefix}-{number:04d}"
        seed = int(fingerprint(runtime.seed, key)[:8], 16) % SEED_RANGE
        block = SourceBlock(attack, criterion, split, tuple(members[start : start + runtime.shard_size]), seed, aims)
        yield key, block
