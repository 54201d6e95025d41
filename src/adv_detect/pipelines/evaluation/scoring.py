"""Tables of scores: a row per image and detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from adv_detect.algorithms.detectors import StoredDetector, score_activations
from adv_detect.algorithms.representatives import Representatives
from adv_detect.jobs.activations import read_activations
from adv_detect.jobs.detectors import restore_all
from adv_detect.names import EIGHT_BIT, NATURAL, NOISE
from adv_detect.sharding import ShardContent, ShardStore

FloatArray: TypeAlias = NDArray[np.float32]

IMAGE_FACTS = ("label", "predicted", "margin", "success", "survives", "target", "l2", "linf")
PASSED_ON = ("attack", "criterion", "form", "variant", "split")
TEXT_COLUMNS = ("detector", "source_id", *PASSED_ON)


@dataclass(frozen=True)
class ScoredImages:
    """Images of one shard with their scores.

    Attributes:
        images: One row per image, as :func:`describe_images` gives them.
        scores: Scores ``(n,)`` by detector.
        p_values: Their conformal p-values ``(n,)`` by detector.
    """

    images: pd.DataFrame
    scores: dict[str, FloatArray]
    p_values: dict[str, FloatArray]


@dataclass(frozen=True)
class ScoreWork:
    """Scores the images of a shard with every detector, which are read from disk once.

    Attributes:
        detectors: Stores of detectors, in the order of the rows.
        representatives: Class representatives.
    """

    detectors: tuple[ShardStore, ...]
    representatives: Representatives

    def __call__(self, shard: tuple[ShardStore, str]) -> ScoredImages:
        """Score the shard of that store and key."""
        store, key = shard
        content = store[key]
        images = read_activations(content)
        scores = {one.key: score_activations(one.detector, images) for one in self._restored}
        p_values = {one.key: _single(one.p_values(scores[one.key])) for one in self._restored}
        return ScoredImages(describe_images(content), {key: _single(one) for key, one in scores.items()}, p_values)

    @cached_property
    def _restored(self) -> list[StoredDetector]:
        return [one for store in self.detectors for one in restore_all(store, self.representatives)]


def _single(values: Tensor) -> FloatArray:
    return values.numpy().astype(np.float32)


def describe_images(content: ShardContent) -> pd.DataFrame:
    """Describe the images of one shard: the columns that do not depend on the detector.

    Args:
        content: A shard of activations.

    Returns:
        One row per image: source_id, attack, criterion, form, variant, split, adversarial, success, label,
        predicted, correct, margin, l2, linf.
    """
    columns = {name: content.tensors[name].numpy() for name in IMAGE_FACTS}
    natural = content.metadata["attack"] == NATURAL
    return pd.DataFrame(
        {
            "source_id": content.metadata["source_ids"],
            **{name: content.metadata[name] for name in PASSED_ON},
            "adversarial": not natural and content.metadata["variant"] != NOISE,
            "success": columns["survives"] if content.metadata["variant"] == EIGHT_BIT else columns["success"],
            "label": columns["label"],
            "predicted": columns["predicted"],
            "correct": columns["predicted"] == columns["label"],
            **{name: columns[name] for name in ("margin", "l2", "linf")},
        }
    )


def join_scores(
    images: pd.DataFrame, scores: Mapping[str, FloatArray], p_values: Mapping[str, FloatArray]
) -> pd.DataFrame:
    """Put the scores of all detectors below each other.

    Args:
        images: One row per image, as :func:`describe_images` gives them.
        scores: Scores ``(N,)`` of these images by detector.
        p_values: Their conformal p-values ``(N,)`` by detector.

    Returns:
        One row per image x detector: detector, source_id, attack, criterion, form, variant, split, score, p_value and
        the other columns of ``images``; texts are categories.
    """
    texts = images.astype(dict.fromkeys(TEXT_COLUMNS[1:], "category"))
    frames = [
        texts.assign(
            detector=pd.Categorical([key] * len(texts), categories=list(scores)), score=values, p_value=p_values[key]
        )
        for key, values in scores.items()
    ]
    others = [name for name in images.columns if name not in TEXT_COLUMNS]
    return pd.concat(frames, ignore_index=True)[[*TEXT_COLUMNS, "score", "p_value", *others]]


def with_verdicts(scores: pd.DataFrame, thresholds: pd.DataFrame) -> pd.DataFrame:
    """Add a verdict per false-positive rate.

    Args:
        scores: Rows of :func:`join_scores`.
        thresholds: One row per detector and rate: detector, fpr, rate, threshold.

    Returns:
        A new table with the columns ``verdict_fpr_01`` and so on: score above the threshold.
    """
    verdicts = {}
    for rate, rows in thresholds.sort_values("fpr", kind="stable").groupby("rate", sort=False):
        limits = dict(zip(rows["detector"].astype(str), rows["threshold"], strict=True))
        verdicts[f"verdict_fpr_{rate}"] = scores["score"] > scores["detector"].astype(str).map(limits).astype(float)
    return scores.assign(**verdicts)
