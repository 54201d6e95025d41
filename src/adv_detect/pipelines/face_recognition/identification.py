"""Identification of clean and attacked faces: nearest neighbours in galleries of enrolled faces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch

from adv_detect.algorithms.representatives import Representatives
from adv_detect.measures.faces.identification import Gallery, cumulative_match, identify, identity_ranks
from adv_detect.measures.intervals import wilson_interval
from adv_detect.params import FaceRecognitionParams
from adv_detect.pipelines.face_recognition.rows import FaceRows
from adv_detect.sharding import ShardStore

IMAGES = "images"


def build_gallery(kind: str, representatives: Representatives, features: ShardStore, metric: str) -> Gallery:
    """Collect the enrolled faces.

    Args:
        kind: ``medoid`` or ``centroid`` of each identity, or ``images``: all its training images.
        representatives: Class representatives.
        features: Features of the training images, per class.
        metric: ``euclidean`` or ``cosine``.

    Returns:
        The gallery, at the last layer.
    """
    if kind != IMAGES:
        vectors = representatives.of(kind)[-1]
        return Gallery(vectors, torch.arange(len(vectors)), metric)  # type: ignore[arg-type]
    last = f"layer.{len(representatives.layers) - 1:03d}"
    parts, labels = [], []
    for content in features.values():
        parts.append(content.tensors[last])
        labels.append(torch.full((len(parts[-1]),), int(content.metadata["label"])))
    return Gallery(torch.cat(parts), torch.cat(labels), metric)  # type: ignore[arg-type]


def identification_table(
    gallery: Gallery, natural: FaceRows, attacked: Iterable[FaceRows], params: FaceRecognitionParams
) -> pd.DataFrame:
    """Measure identification on clean and on attacked images.

    Args:
        gallery: Known faces.
        natural: Clean test images.
        attacked: Attacked test images, an attack and criterion at a time.
        params: Number of neighbours, engine.

    Returns:
        One row per attack and criterion, clean images first (attack ``natural``): attack, criterion, form, n,
        accuracy (share named as their true identity), accuracy_low, accuracy_high (95 %, Wilson), rank_1, rank_5,
        n_right (images named rightly when clean), fooled (share of these named otherwise under attack), fooled_low,
        fooled_high, named_target (share of all named as the identity aimed at; NaN for untargeted attacks),
        named_target_low, named_target_high.
    """
    clean = _named(gallery, natural, params)
    right = set(natural.source_index[torch.from_numpy(clean == natural.label.numpy())].tolist())
    rows = [_measure(gallery, natural, clean, right)]
    rows += [_measure(gallery, faces, _named(gallery, faces, params), right) for faces in attacked]
    return pd.DataFrame(rows)


def _named(gallery: Gallery, faces: FaceRows, params: FaceRecognitionParams) -> np.ndarray:
    return identify(gallery, faces.embedding, k=params.neighbours, engine=params.engine)


def _measure(gallery: Gallery, faces: FaceRows, named: np.ndarray, right: set[int]) -> dict[str, Any]:
    truth, target = faces.label.numpy(), faces.target.numpy()
    was_right = np.array([index in right for index in faces.source_index.tolist()], dtype=bool)
    ranks = cumulative_match(identity_ranks(gallery, faces.embedding, faces.label))
    return {
        "attack": faces.attack,
        "criterion": faces.criterion,
        "form": faces.form,
        "n": len(faces),
        **_share("accuracy", named == truth),
        **{f"rank_{rank}": share for rank, share in ranks.items()},
        "n_right": int(was_right.sum()),
        **_share("fooled", (named != truth)[was_right]),
        **_share("named_target", (named == target)[target >= 0]),
    }


def _share(name: str, happened: np.ndarray) -> dict[str, float]:
    """Share with its interval; NaN where nothing was asked."""
    if not len(happened):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), float("nan"))
    low, high = wilson_interval(int(happened.sum()), len(happened))
    return {name: float(happened.mean()), f"{name}_low": low, f"{name}_high": high}
