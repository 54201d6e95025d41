"""Scores of all detectors and controls on stored trajectories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from adv_detect.algorithms.detector_keys import UNTRAINED, UNTRAINED_DRAWS
from adv_detect.algorithms.detectors import random_detector, score_trajectories
from adv_detect.params import DetectorParams
from adv_detect.pipelines.detector_training.rows import NATURAL, read_trajectories
from adv_detect.serving.bundle import restore_detector
from adv_detect.sharding import ShardContent, ShardStore

FloatArray: TypeAlias = NDArray[np.float32]

ABOUT_IMAGE = ("label", "predicted", "margin", "success", "survives", "target", "l2", "linf")
PASSED_ON = ("attack", "criterion", "form", "variant", "split")
TEXT_COLUMNS = ("detector", "source_id", *PASSED_ON)


@dataclass(frozen=True)
class Scorer:
    """One way of scoring an image.

    Attributes:
        key: Key of the detector, or the name of a control.
        detector: Reads trajectories; None scores by the margin alone.
        params: Configuration of the detector.
        thresholds: Score above which an image counts as adversarial, by false-positive rate.
    """

    key: str
    detector: nn.Module | None
    params: DetectorParams
    thresholds: dict[float, float]


def load_scorers(detectors: ShardStore, untrained: str) -> Iterator[Scorer]:
    """Give every trained detector, then the controls with random weights.

    Args:
        detectors: The trained detectors.
        untrained: Key of the detector whose shape the untrained control has.

    Yields:
        Scorers with the thresholds that were fixed in training; the controls have none yet.
    """
    for key in detectors.keys():  # noqa: SIM118 - a store is no dictionary
        content = detectors.read(key)
        yield Scorer(
            key,
            restore_detector(content.metadata, content.tensors),
            _params(content.metadata),
            _thresholds(content.metadata),
        )
    shape = detectors.read(untrained)
    about, params = shape.metadata, _params(shape.metadata)
    for draw in range(UNTRAINED_DRAWS):
        detector = random_detector(params, layers=about["layers"], classes=about["classes"], seed=draw)
        detector.set_standardisation(shape.tensors["mean"], shape.tensors["std"])
        detector.eval()
        yield Scorer(f"{UNTRAINED}/{draw}", detector, params, {})


def describe_images(content: ShardContent) -> pd.DataFrame:
    """Say what is known of the images of one shard, whoever scores them.

    Args:
        content: A shard of trajectories.

    Returns:
        One row per image: source_id, attack, criterion, form, variant, split, adversarial, success, label,
        predicted, correct, margin, l2, linf.
    """
    columns = {name: content.tensors[name].numpy() for name in ABOUT_IMAGE}
    natural = content.metadata["attack"] == NATURAL
    return pd.DataFrame(
        {
            "source_id": content.metadata["source_ids"],
            **{name: content.metadata[name] for name in PASSED_ON},
            "adversarial": not natural and content.metadata["variant"] != "noise",
            "success": columns["survives"] if content.metadata["variant"] == "8bit" else columns["success"],
            "label": columns["label"],
            "predicted": columns["predicted"],
            "correct": columns["predicted"] == columns["label"],
            **{name: columns[name] for name in ("margin", "l2", "linf")},
        }
    )


def score_shard(content: ShardContent, scorer: Scorer) -> FloatArray:
    """Score the images of one shard with one detector.

    Args:
        content: A shard of trajectories.
        scorer: The detector or control.

    Returns:
        Scores ``(n,)``, float32.
    """
    if scorer.detector is None:
        scores = -content.tensors["margin"]
    else:
        scores = score_trajectories(scorer.detector, read_trajectories(content, scorer.params))
    result: FloatArray = scores.numpy().astype(np.float32)
    return result


def join_scores(images: pd.DataFrame, scores: Mapping[str, FloatArray]) -> pd.DataFrame:
    """Put the scores of all detectors below each other.

    Args:
        images: One row per image, as :func:`describe_images` gives them.
        scores: Scores ``(N,)`` of these images by detector.

    Returns:
        One row per image x detector: detector, source_id, attack, criterion, form, variant, split, score and the
        other columns of ``images``; texts are categories.
    """
    texts = images.astype(dict.fromkeys(TEXT_COLUMNS[1:], "category"))
    frames = [
        texts.assign(detector=pd.Categorical([key] * len(texts), categories=list(scores)), score=values)
        for key, values in scores.items()
    ]
    others = [name for name in images.columns if name not in TEXT_COLUMNS]
    return pd.concat(frames, ignore_index=True)[[*TEXT_COLUMNS, "score", *others]]


def with_verdicts(scores: pd.DataFrame, thresholds: dict[str, dict[float, float]]) -> pd.DataFrame:
    """Add a verdict per false-positive rate.

    Args:
        scores: Rows of :func:`join_scores`.
        thresholds: By detector, then by false-positive rate.

    Returns:
        A new table with the columns ``verdict_fpr_01`` and so on: score above the threshold.
    """
    rates = sorted({fpr for one in thresholds.values() for fpr in one})
    verdicts = {}
    for fpr in rates:
        limit = scores["detector"].map({key: one[fpr] for key, one in thresholds.items()}).astype(float)
        verdicts[f"verdict_fpr_{round(fpr * 100):02d}"] = scores["score"] > limit
    return scores.assign(**verdicts)


def _params(about: dict[str, Any]) -> DetectorParams:
    return DetectorParams.model_validate(about["params"])


def _thresholds(about: dict[str, Any]) -> dict[float, float]:
    return {float(fpr): float(value) for fpr, value in about["thresholds"].items()}
