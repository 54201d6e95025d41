"""Scores of images: which shards to make, and how."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from torch import Tensor

from adv_detect.algorithms.detectors import StoredDetector, score_activations
from adv_detect.algorithms.representatives import Representatives
from adv_detect.jobs.activations import read_activations
from adv_detect.jobs.detectors import restore_all
from adv_detect.measures.score_parts import ADVERSARIAL, FACTS, SHARED, SOURCES, Limits, score_content
from adv_detect.names import EIGHT_BIT, NATURAL, NOISE
from adv_detect.sharding import ShardContent, ShardStore


@dataclass(frozen=True)
class ScoreBlock:
    """A shard of activations to score.

    Attributes:
        store: Where it lies.
        key: Its key.
        form: Form of its attack: ``early``, ``confident`` or ``unseen``; None leaves it as it is.
    """

    store: ShardStore
    key: str
    form: str | None


@dataclass(frozen=True)
class ScoreWork:
    """Scores the images of a shard with every detector, which are read from disk once.

    Attributes:
        detectors: Stores of detectors, in the order in which they are written.
        representatives: Class representatives.
        limits: Thresholds of the detectors.
    """

    detectors: tuple[ShardStore, ...]
    representatives: Representatives
    limits: Limits

    def __call__(self, block: ScoreBlock) -> ShardContent:
        """Make the shard of scores."""
        content = block.store[block.key]
        images, facts = read_activations(content), content.metadata
        scores = {one.key: score_activations(one.detector, images) for one in self._restored}
        p_values = {one.key: one.p_values(scores[one.key]) for one in self._restored}
        shared = {name: facts[name] for name in SHARED} | {SOURCES: facts[SOURCES]}
        shared[ADVERSARIAL] = facts["attack"] != NATURAL and facts["variant"] != NOISE
        shared["form"] = block.form or facts["form"]
        return score_content(_facts(content), shared, scores, p_values, self.limits)

    @cached_property
    def _restored(self) -> list[StoredDetector]:
        return [one for store in self.detectors for one in restore_all(store, self.representatives)]


def _facts(content: ShardContent) -> dict[str, Tensor]:
    """Take what describes each image, whatever the detector."""
    tensors = content.tensors
    found = {name: tensors[name] for name in FACTS if name in tensors}
    if content.metadata["variant"] == EIGHT_BIT:
        found["success"] = tensors["survives"]
    return found | {"correct": tensors["predicted"] == tensors["label"]}


def limits_of(thresholds: pd.DataFrame, fprs: tuple[float, ...]) -> dict[str, dict[str, float]]:
    """Arrange thresholds by detector and rate, rates ascending.

    Args:
        thresholds: One row per detector and rate: detector, fpr, rate, threshold.
        fprs: The rates wanted.
    """
    rows = thresholds[thresholds["fpr"].isin(fprs)].sort_values("fpr", kind="stable")
    return {
        str(key): dict(zip(part["rate"], part["threshold"].astype(float), strict=True))
        for key, part in rows.groupby("detector", sort=False, observed=True)
    }
