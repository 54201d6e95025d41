"""Tables of scores: a row per image and detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adv_detect.names import EIGHT_BIT, NATURAL, NOISE
from adv_detect.sharding import ShardContent

FloatArray: TypeAlias = NDArray[np.float32]

IMAGE_FACTS = ("label", "predicted", "margin", "success", "survives", "target", "l2", "linf")
PASSED_ON = ("attack", "criterion", "form", "variant", "split")
TEXT_COLUMNS = ("detector", "source_id", *PASSED_ON)


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
