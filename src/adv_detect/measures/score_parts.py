"""Scores of many images in shards, read detector by detector.

A shard holds the images of one shard of activations: what describes them once, and of each detector its scores and
p-values in tensors of their own, so that a reader fetches the bytes of some detectors alone. Detectors are read in
blocks, as many as fit ``BLOCK_BYTES``, each in one pass over the shards. Memory grows with the number of images, not
with that of images x detectors. Whoever scores a shard writes it; nothing is joined.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from adv_detect.algorithms.roc import BoolArray, check_scores
from adv_detect.errors import DataError
from adv_detect.measures.score_columns import GROUP_COLUMNS, VERDICT_PREFIX, GroupKey, Index, ScoreColumns
from adv_detect.names import FLOAT
from adv_detect.sharding import ShardContent, ShardStore

Limits: TypeAlias = Mapping[str, Mapping[str, float]]
"""Thresholds by detector, by the rate as it is written in columns."""

FACTS = ("success", "label", "predicted", "correct", "margin", "l2", "linf")
SHARED = (*GROUP_COLUMNS, "split")
SCORE, P_VALUE = "score", "p_value"
BLOCK_BYTES = 64_000_000
"""Memory for scores that are read before their detector's turn."""
DETECTORS, SOURCES, LIMITS, ADVERSARIAL, COUNT = "detectors", "source_ids", "thresholds", "adversarial", "count"


def score_content(
    images: Mapping[str, Tensor],
    shared: Mapping[str, Any],
    scores: Mapping[str, Tensor],
    p_values: Mapping[str, Tensor],
    limits: Limits,
) -> ShardContent:
    """Put the scores of some images together as a shard.

    Args:
        images: ``FACTS`` of each image, ``(n,)`` each.
        shared: What all have in common: attack, criterion, form, variant, split, whether they are ``adversarial``, and
            their ``source_ids``.
        scores: Scores ``(n,)`` by detector.
        p_values: Their conformal p-values ``(n,)`` by detector.
        limits: Thresholds of these detectors.

    Returns:
        The shard.
    """
    tensors = {name: images[name] for name in FACTS}
    for number, key in enumerate(scores):
        tensors |= {_name(SCORE, number): scores[key].float(), _name(P_VALUE, number): p_values[key].float()}
    rates = list(limits[next(iter(scores))])
    facts = {name: shared[name] for name in (*SHARED, ADVERSARIAL, SOURCES)}
    facts |= {DETECTORS: list(scores), LIMITS: {rate: [limits[key][rate] for key in scores] for rate in rates}}
    return ShardContent(tensors, facts)


@dataclass(frozen=True)
class _Images:
    """Test images of all shards, sorted by source image.

    Attributes:
        order: Where each image stood, ``(N,)``.
        n_sources: Number of source images.
        groups: The images of each condition.
    """

    order: Index
    success: BoolArray
    correct: BoolArray
    source: Index
    n_sources: int
    groups: dict[GroupKey, Index]


class ScoreParts:
    """Scores in a store of shards, as :func:`score_content` makes them.

    In memory are what describes the test images, the columns of one detector, and scores of the next ones, which fit
    ``BLOCK_BYTES``: whoever asks for detectors in their order goes through the shards once a block. Images as they were
    attacked come before rounded and noisy ones, otherwise shards stand in the order of their keys.

    Args:
        store: The store.

    Raises:
        DataError: There is no shard in it, or shards are of different detectors.
    """

    def __init__(self, store: ShardStore) -> None:
        facts = {key: _without_sources(store.metadata(key)) for key in store}
        self._facts = dict(sorted(facts.items(), key=lambda one: bool(one[1]["variant"] != FLOAT)))
        self._store = store
        self._ahead: dict[str, NDArray[Any]] = {}
        if not self._facts:
            raise DataError(f"{store.root}: expected shards of scores, got none; run evaluation")
        first, *others = self._facts
        self._detectors: list[str] = self._facts[first][DETECTORS]
        self._limits: dict[str, list[float]] = self._facts[first][LIMITS]
        for key in others:
            if self._facts[key][DETECTORS] != self._detectors or self._facts[key][LIMITS] != self._limits:
                raise DataError(
                    f"{store.root}: expected all shards to be of the same detectors and thresholds, got others in "
                    f"{key!r} than in {first!r}; run evaluation again"
                )

    @property
    def detectors(self) -> Sequence[str]:
        """Keys of the detectors, as they come."""
        return self._detectors

    @property
    def n_sources(self) -> int:
        """Number of source images of the test split."""
        return self._images.n_sources

    def columns(self, detector: str) -> ScoreColumns:
        """Read what a detector says of the test images.

        Args:
            detector: One of ``detectors``.

        Returns:
            Its columns, sorted by source image.
        """
        images, number = self._images, self._detectors.index(detector)
        scores = check_scores(self._scores(number)[images.order])
        verdicts = {rate: scores > limits[number] for rate, limits in self._limits.items()}
        return ScoreColumns(
            score=scores,
            success=images.success,
            correct=images.correct,
            source=images.source,
            verdicts=verdicts,
            n_sources=images.n_sources,
            groups={detector: images.groups},
        )

    def table(
        self,
        detectors: Collection[str] | None = None,
        *,
        splits: Collection[str] | None = None,
        attacks: Collection[str] | None = None,
    ) -> pd.DataFrame:
        """Join some of the scores to one table.

        Args:
            detectors: Keys of the detectors wanted; None for all.
            splits: Splits wanted; None for all.
            attacks: Attacks wanted, ``natural`` among them; None for all.

        Returns:
            One row per image x detector: detector, source_id, attack, criterion, form, variant, split, score, p_value,
            adversarial, success, label, predicted, correct, margin, l2, linf, and ``verdict_fpr_01`` and so on per
            rate: score above the threshold. Texts are categories.
        """
        keys = [
            key
            for key, facts in self._facts.items()
            if (splits is None or facts["split"] in splits) and (attacks is None or facts["attack"] in attacks)
        ]
        images = self._described(keys)
        wanted = [key for key in self._detectors if detectors is None or key in detectors]
        frames = list(self._rows(wanted, keys, images))
        return pd.concat(frames, ignore_index=True) if frames else images.iloc[:0].assign(detector="", score=0.0)

    def _rows(self, wanted: list[str], keys: list[str], images: pd.DataFrame) -> Iterator[pd.DataFrame]:
        """Give the rows of each detector."""
        size = _detectors_in_block(len(images), (SCORE, P_VALUE))
        for start in range(0, len(wanted), size):
            numbers = {key: self._detectors.index(key) for key in wanted[start : start + size]}
            block = self._read([_name(what, number) for number in numbers.values() for what in (SCORE, P_VALUE)], keys)
            for key, number in numbers.items():
                scores = block[_name(SCORE, number)]
                columns = {
                    "detector": pd.Categorical([key] * len(images), categories=wanted),
                    **{name: images[name] for name in ("source_id", *SHARED)},
                    SCORE: scores,
                    P_VALUE: block[_name(P_VALUE, number)],
                    **{name: images[name] for name in (ADVERSARIAL, *FACTS)},
                }
                for rate, limits in self._limits.items():
                    columns[f"{VERDICT_PREFIX}{rate}"] = scores.astype(np.float64) > limits[number]
                yield pd.DataFrame(columns)

    def _described(self, keys: list[str]) -> pd.DataFrame:
        """Describe the images of some shards, a row each."""
        sources = [self._store.metadata(key)[SOURCES] for key in keys]
        counts = list(map(len, sources))
        columns: dict[str, Any] = {"source_id": list(itertools.chain.from_iterable(sources))}
        columns |= {name: np.repeat([self._facts[key][name] for key in keys], counts) for name in SHARED}
        columns[ADVERSARIAL] = np.repeat(np.array([self._facts[key][ADVERSARIAL] for key in keys], dtype=bool), counts)
        columns |= self._read(FACTS, keys)
        return pd.DataFrame(columns).astype(dict.fromkeys(("source_id", *SHARED), "category"))

    def _scores(self, number: int) -> NDArray[Any]:
        """Give the scores of the test images by a detector, once; read those of the next ones too."""
        name = _name(SCORE, number)
        if name not in self._ahead:
            self._ahead.clear()  # before the next block is in memory
            end = number + _detectors_in_block(len(self._images.order), (SCORE,))
            wanted = range(number, min(end, len(self._detectors)))
            self._ahead = self._read([_name(SCORE, one) for one in wanted], self._tested)
        return self._ahead.pop(name)

    def _read(self, names: Sequence[str], keys: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Read some tensors of some shards, one shard after the other, in one pass."""
        part, found = self._store.only(*names), {name: np.zeros(0) for name in names}
        places = np.cumsum([0, *(self._facts[key][COUNT] for key in keys)])
        for key, (start, stop) in zip(keys, itertools.pairwise(places), strict=True):
            for name, tensor in part[key].tensors.items():
                values = tensor.numpy()
                if not start:
                    found[name] = np.empty(places[-1], dtype=values.dtype)
                found[name][start:stop] = values
        return found

    @property
    def _tested(self) -> list[str]:
        return [key for key, facts in self._facts.items() if facts["split"] == "test"]

    @cached_property
    def _images(self) -> _Images:
        """Read what describes the test images."""
        tested = self._tested
        if not tested:
            raise DataError(f"{self._store.root}: expected scores of the split 'test', got none")
        numbers: dict[str, int] = {}
        groups: dict[GroupKey, int] = {}
        sources, group = [], []
        for key in tested:
            names = self._store.metadata(key)[SOURCES]
            sources.append(np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int32))
            condition = cast("GroupKey", tuple(str(self._facts[key][name]) for name in GROUP_COLUMNS))
            group.append(np.full(len(sources[-1]), groups.setdefault(condition, len(groups)), dtype=np.int16))
        source = np.concatenate(sources)
        order = np.argsort(source, kind="stable")
        of_group, facts = np.concatenate(group)[order], self._read(("success", "correct"), tested)
        return _Images(
            order=order,
            success=facts["success"][order],
            correct=facts["correct"][order],
            source=source[order].astype(np.intp),
            n_sources=len(numbers),
            groups={key: np.flatnonzero(of_group == number) for key, number in groups.items()},
        )


def _without_sources(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Count the source images in the place of their names, which take more memory than all else."""
    return {name: value for name, value in facts.items() if name != SOURCES} | {COUNT: len(facts[SOURCES])}


def _detectors_in_block(count: int, tensors: Sequence[str]) -> int:
    """Tell of how many detectors such tensors of ``count`` images fit a block; of one at least."""
    return max(1, BLOCK_BYTES // (len(tensors) * max(1, count) * torch.float32.itemsize))


def _name(what: str, number: int) -> str:
    return f"{what}.{number:04d}"
