"""Nodes that verify and identify faces."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch

from adv_detect.absent import Absent
from adv_detect.algorithms.representatives import Representatives
from adv_detect.images import ImageSet, image_set_identity
from adv_detect.measures.faces.decisions import fold_accuracy
from adv_detect.measures.faces.draw import draw_pairs
from adv_detect.measures.faces.gate import attack_label
from adv_detect.measures.faces.pairs import LocatedPairs, locate_pairs, parse_pairs
from adv_detect.measures.faces.verification import verify
from adv_detect.names import NATURAL
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import FaceRecognitionParams, RuntimeParams
from adv_detect.pipelines.face_recognition.embedders import check_shape, plan_embedder
from adv_detect.pipelines.face_recognition.embedding_shards import (
    MISSING,
    TEMPLATE,
    TWIN_TEMPLATE,
    AttackedFaceWork,
    FaceWork,
    pair_shards,
)
from adv_detect.pipelines.face_recognition.identification import build_gallery, identification_table
from adv_detect.pipelines.face_recognition.rows import TEST, attacked_faces, natural_faces
from adv_detect.pipelines.face_recognition.verification import attacked_pairs, score_pairs, verification_table
from adv_detect.sharding import ShardPlan, ShardSpec, ShardStore, fingerprint

LOGGER = logging.getLogger(__name__)
PAIRS_FILE = "dataset verification_pairs"
NAMED = 5


def choose_pairs(
    verification_images: ImageSet,
    verification_pairs: str | bytes,
    face_recognition: FaceRecognitionParams,
    runtime: RuntimeParams,
) -> pd.DataFrame:
    """Read the pairs of the protocol, or draw pairs from the images.

    Args:
        verification_images: Images of the people to verify.
        verification_pairs: Text of a pairs file in LFW's format, or its bytes; not read when pairs are drawn.
        face_recognition: Where pairs come from.
        runtime: Seed of a draw.

    Returns:
        One row per pair: first, second (source ids, or names as in the file where an image is missing), same, fold,
        first_index, second_index (positions in the image set, -1 in pairs of which an image is missing).

    Raises:
        DataError: The file is not in LFW's format (names the line), no pair of it is among the images, or there are
            not enough images to draw from.
    """
    wanted = face_recognition.pairs
    if wanted.source == "file":
        located = locate_pairs(parse_pairs(verification_pairs, source=PAIRS_FILE), verification_images.source_ids)
        _report_missing(located, verification_images)
    else:
        located = draw_pairs(
            verification_images.labels.numpy(),
            wanted.number,
            source_ids=verification_images.source_ids,
            seed=runtime.seed,
            folds=wanted.folds,
        )
    found = pd.DataFrame(located.pairs).assign(first_index=located.first, second_index=located.second)
    missing = pd.DataFrame(located.missing).assign(first_index=MISSING, second_index=MISSING)
    return pd.concat([found, missing], ignore_index=True) if len(missing) else found


def embed_faces(
    verification_images: ImageSet,
    network_weights: TargetNetwork,
    twin: TargetNetwork | Absent,
    verification_pair_table: pd.DataFrame,
    face_recognition: FaceRecognitionParams,
    runtime: RuntimeParams,
) -> ShardPlan:
    """Plan the embeddings of the images that occur in pairs.

    Args:
        verification_images: Images of the people to verify.
        network_weights: The network whose last layer is the embedding.
        twin: The second network, which a gate may ask.
        verification_pair_table: The pairs.
        face_recognition: Whether mirror images count, and whether the twin is asked.
        runtime: Shard size, batch size, device, engine.

    Returns:
        A plan with shards ``<number>``.

    Raises:
        DataError: The images have another shape than the network takes.
    """
    check_shape(verification_images, network_weights)
    embedder = plan_embedder(network_weights, twin, face_recognition, runtime)
    digest, mirror, *twins = embedder.identity
    made_from = (digest, image_set_identity(verification_images), mirror, *twins)
    shards = pair_shards(verification_images, verification_pair_table, made_from, runtime)
    work = FaceWork(verification_images, embedder)
    return ShardPlan(work=work, shards=shards, runtime=runtime, description="verification embeddings")


def embed_attacked_faces(
    adversarials: ShardStore,
    network_weights: TargetNetwork,
    twin: TargetNetwork | Absent,
    face_recognition: FaceRecognitionParams,
    runtime: RuntimeParams,
) -> ShardPlan:
    """Plan the embeddings of all natural images and of the attacked test images.

    Args:
        adversarials: Attacked and natural images.
        network_weights: The network whose last layer is the embedding.
        twin: The second network, which a gate may ask.
        face_recognition: Whether mirror images count, and whether the twin is asked.
        runtime: Batch size, device, engine.

    Returns:
        A plan with one shard per shard of images.
    """
    embedder = plan_embedder(network_weights, twin, face_recognition, runtime)
    work = AttackedFaceWork(adversarials, embedder)
    wanted = {*adversarials.select(natural=True), *adversarials.select(split=TEST)}
    shards = tuple(
        ShardSpec(key, fingerprint(embedder.identity, of_images), key)
        for key, of_images in sorted(adversarials.fingerprints().items())
        if key in wanted
    )
    return ShardPlan(work=work, shards=shards, runtime=runtime, description="embeddings of attacked faces")


def verify_clean(
    verification_embeddings: ShardStore, verification_pair_table: pd.DataFrame, face_recognition: FaceRecognitionParams
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Verify clean pairs.

    Args:
        verification_embeddings: Embeddings of the images in pairs.
        verification_pair_table: The pairs.
        face_recognition: False-accept rates.

    Returns:
        ``verification_scores``: the pairs that could be compared, with their cosine similarity ``score`` and
        ``twin_score``, that in the twin (NaN where it is not asked); and the figures of the protocol: ten-fold accuracy
        (where there are folds), AUC, EER, TAR at FAR, counts.
    """
    parts = [content.tensors for content in verification_embeddings.values()]
    order = torch.cat([part["source_index"] for part in parts]).tolist()
    there = verification_pair_table[verification_pair_table["first_index"] != MISSING]
    positions = {index: row for row, index in enumerate(order)}
    templates = torch.cat([part[TEMPLATE] for part in parts])
    asked = all(TWIN_TEMPLATE in part for part in parts)
    twin = torch.cat([part[TWIN_TEMPLATE] for part in parts]) if asked else templates[:, :0]
    scores = score_pairs(there, templates, twin, positions)
    return scores, _protocol(scores, face_recognition.fars) | {
        "verification/n_missing": float(len(verification_pair_table) - len(there))
    }


def pair_attacked_faces(attack_embeddings: ShardStore, runtime: RuntimeParams) -> pd.DataFrame:
    """Compare each attacked test image with a clean image of the person to match, or to be apart from.

    Args:
        attack_embeddings: Embeddings of natural and attacked images.
        runtime: Seed of the draw.

    Returns:
        Rows of :func:`adv_detect.pipelines.face_recognition.verification.attacked_pairs`.
    """
    natural = natural_faces(attack_embeddings)
    return attacked_pairs(natural, attacked_faces(attack_embeddings), seed=runtime.seed)


def verify_attacked(
    attacked_pair_scores: pd.DataFrame, verification_scores: pd.DataFrame, face_recognition: FaceRecognitionParams
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Count the decisions that attacks turn, at thresholds fixed on clean pairs.

    Args:
        attacked_pair_scores: Pairs with one side attacked.
        verification_scores: Clean pairs.
        face_recognition: Rules of the thresholds.

    Returns:
        Rows of :func:`adv_detect.pipelines.face_recognition.verification.verification_table`, twice: for parquet and
        for CSV.
    """
    table = verification_table(attacked_pair_scores, verification_scores, face_recognition)
    return table, table


def identify_faces(
    attack_embeddings: ShardStore,
    representatives: Representatives,
    features: ShardStore,
    face_recognition: FaceRecognitionParams,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Name clean and attacked test images by their nearest neighbours, in each configured gallery.

    Args:
        attack_embeddings: Embeddings of natural and attacked images.
        representatives: Class representatives.
        features: Features of the training images.
        face_recognition: Galleries, number of neighbours, metric.

    Returns:
        Rows of :func:`adv_detect.pipelines.face_recognition.identification.identification_table` after a column
        ``gallery``, twice: for parquet and for CSV.
    """
    natural = natural_faces(attack_embeddings, TEST)
    attacked = list(attacked_faces(attack_embeddings))
    frames = []
    for kind in face_recognition.galleries:
        gallery = build_gallery(kind, representatives, features, face_recognition.metric)
        frame = identification_table(gallery, natural, attacked, face_recognition)
        frame.insert(0, "gallery", kind)
        frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    return table, table


def summarise_faces(
    verification_metrics: dict[str, float],
    face_verification: pd.DataFrame,
    face_identification: pd.DataFrame,
    face_gate: pd.DataFrame,
) -> dict[str, float]:
    """Gather the figures for the tracking server.

    Args:
        verification_metrics: Figures of the clean protocol.
        face_verification: Verification under attack.
        face_identification: Identification, clean and attacked.
        face_gate: Verification before and after the gate.

    Returns:
        Figures by name; those that were not measured are left out.
    """
    attacked = face_verification[face_verification["attack"] != NATURAL]
    found = dict(verification_metrics)
    for row in _records(attacked):
        found[f"{row['kind']}/{row['attack']}/fooled_at_{row['threshold_rule']}"] = row["fooled"]
    for row in _records(face_identification):
        place = f"identification/{row['gallery']}/{row['attack']}/{row['criterion']}"
        found |= {f"{place}/{name}": row[name] for name in ("accuracy", "fooled", "named_target")}
    for row, label in zip(_records(face_gate), attack_label(face_gate), strict=True):
        gate = f"gate/{row['configuration']}/{row['calibrated_on']}/fpr_{row['fpr']:g}/{row['people']}/{row['kind']}"
        place = f"{gate}/{label.replace(', ', '/')}"
        found |= {f"{place}/{name}": row[name] for name in ("before", "after")}
    return {name: float(value) for name, value in found.items() if not math.isnan(value)}


def _records(table: pd.DataFrame) -> Iterable[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _protocol(scores: pd.DataFrame, fars: tuple[float, ...]) -> dict[str, float]:
    values, same = scores["score"].to_numpy(dtype=np.float64), scores["same"].to_numpy(dtype=bool)
    measured = verify(values, same, fars=fars)
    result = {
        "auc": measured.auc,
        "eer": measured.eer,
        "n_same": float(measured.n_same),
        "n_different": float(measured.n_different),
        **{f"tar_at_far_{one.far:g}": one.tar for one in measured.accept_rates},
    }
    if scores["fold"].nunique() > 1:
        folds = fold_accuracy(values, same, scores["fold"].to_numpy(dtype=np.int64))
        result |= {"fold_accuracy": folds.mean, "fold_accuracy_error": folds.standard_error}
    return {f"verification/{name}": value for name, value in result.items()}


def _report_missing(located: LocatedPairs, images: ImageSet) -> None:
    if located.missing:
        names = located.missing_images(images.source_ids)
        shown = ", ".join(names[:NAMED])
        LOGGER.warning(
            "verification: %d pairs left out, for lack of %d images: %s", len(located.missing), len(names), shown
        )
