"""Nodes that measure verification and identification behind each detector."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from adv_detect.absent import Absent
from adv_detect.algorithms.attacks.targets import draw_targets
from adv_detect.algorithms.detectors.stored import CLEAN_SCORES
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import DataError
from adv_detect.measures.faces.decisions import clean_threshold
from adv_detect.measures.faces.gate import (
    FALSE_ACCEPT,
    FALSE_REJECT,
    KNOWN,
    NOT_READ,
    NOTHING,
    GateThreshold,
    clean_condition,
    clean_pair_rows,
    gate_detectors,
    gate_table,
    gate_thresholds,
    higher_scores,
)
from adv_detect.measures.faces.gate_forms import Gate, list_gates, similarity_thresholds, thresholds_of
from adv_detect.measures.faces.identification import identify
from adv_detect.names import DODGING, GATE_DETECTOR, IMPERSONATION, NATURAL, NO_CRITERION, TARGETED, UNTARGETED
from adv_detect.params import FaceRecognitionParams, RuntimeParams
from adv_detect.params.face_recognition import GateParams
from adv_detect.pipelines.face_recognition.adaptive_faces import EVERY, NO_BUDGET, ProbeGroup, adaptive_groups
from adv_detect.pipelines.face_recognition.gate_shards import SCORES
from adv_detect.pipelines.face_recognition.identification import build_gallery
from adv_detect.pipelines.face_recognition.rows import TEST, attacked_faces, natural_faces
from adv_detect.pipelines.face_recognition.verification import attacked_pairs
from adv_detect.sharding import ShardStore

NAMED_TARGET, MISNAMED = "named_target", "misnamed"
IDENTIFIED = {TARGETED: NAMED_TARGET, UNTARGETED: MISNAMED}


def pair_gate_faces(
    attacked_pair_scores: pd.DataFrame,
    adaptive_embeddings: ShardStore | Absent,
    attack_embeddings: ShardStore,
    representatives: Representatives,
    runtime: RuntimeParams,
) -> pd.DataFrame:
    """Gather all pairs of people whom the detectors know: clean, attacked, and attacked with knowledge of a detector.

    Args:
        attacked_pair_scores: Pairs with one side attacked.
        adaptive_embeddings: Embeddings of images of attacks that know the detector; absent where there are none.
        attack_embeddings: Embeddings of natural and attacked images.
        representatives: Class representatives, for their number.
        runtime: Seed of the drawn pairs.

    Returns:
        Rows of :func:`adv_detect.pipelines.face_recognition.verification.attacked_pairs` with the columns people, norm,
        epsilon, detector (that the attack knew; empty for none), knows (the form of the gate that it was made against;
        ``nothing`` for none) and probe_score (of that detector). Clean pairs (attack
        ``natural``) are natural test images with another picture of the same, or of another, person; their kinds are
        ``false_reject`` and ``false_accept``.
    """
    unaware = [attacked_pair_scores, _clean_pairs(attack_embeddings, len(representatives.medoids[-1]), runtime.seed)]
    frames = [one.assign(detector=EVERY, knows=NOTHING, probe_score=float("nan"), **NO_BUDGET) for one in unaware]
    natural = natural_faces(attack_embeddings)
    for one in [] if isinstance(adaptive_embeddings, Absent) else adaptive_groups(adaptive_embeddings):
        pairs = attacked_pairs(natural, [one.rows], seed=runtime.seed)
        scores = dict(zip(one.rows.source_ids, one.scores.tolist(), strict=True))
        known = pairs["source_id"].map(scores).fillna(np.inf)
        frames.append(pairs.assign(detector=one.detector, knows=one.knows, probe_score=known, **one.budget))
    return pd.concat([one for one in frames if len(one)], ignore_index=True).assign(people=KNOWN)


def measure_gate(
    gate_pairs: pd.DataFrame,
    validation_pair_scores: pd.DataFrame,
    verification_scores: pd.DataFrame,
    pair_image_scores: ShardStore,
    gate_scores: pd.DataFrame,
    detectors: ShardStore,
    detector_summary: pd.DataFrame,
    face_recognition: FaceRecognitionParams,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure verification before and after the gate: what attacks get through, and which clean pairs it turns away.

    Args:
        gate_pairs: Pairs of people whom the detectors know.
        validation_pair_scores: Clean pairs of the same person, which fix the twin's thresholds.
        verification_scores: Clean pairs of the protocol.
        pair_image_scores: Detector scores of their images.
        gate_scores: Detector scores of natural and attacked images.
        detectors: The trained detectors, for their clean scores.
        detector_summary: One row per trained detector.
        face_recognition: Forms of the gate, false-accept rate of the similarity threshold, rates of the gates.

    Returns:
        Rows of :func:`adv_detect.measures.faces.gate.gate_table` after the columns gate (its form), detector (empty for
        none), configuration (name of the gate), far, similarity_threshold, twice: for parquet and for CSV.

    Raises:
        DataError: All gates ask the twin, and there are too few clean pairs for each of the rates.
    """
    params = face_recognition.gate
    values, same = verification_scores["score"].to_numpy(dtype=np.float64), verification_scores["same"].to_numpy(bool)
    similarity = clean_threshold(values, same, rule=params.far)
    keys = gate_detectors(detector_summary)
    readers = {key: _ScoresOf(gate_scores[gate_scores["detector"] == key]) for key in keys}
    twin = _twin_thresholds(validation_pair_scores, verification_scores, params) if _asks_twin(params.forms) else []
    frames = []
    for gate in list_gates(params.forms, keys):
        pairs, images = _protocol_pairs(verification_scores, pair_image_scores, gate.detector)
        detector = _thresholds(detectors, gate.detector, images, params.fprs) if gate.detector else []
        if not (thresholds := thresholds_of(gate, detector, twin)):
            continue
        cases = _cases(gate, gate_pairs, readers)
        clean = pd.DataFrame(clean_pair_rows(pairs, images, thresholds, similarity=similarity))
        table = pd.concat([clean, gate_table(_decided(cases, similarity), thresholds)])
        facts = {"gate": gate.form, "detector": gate.detector, "configuration": gate.label, "far": params.far}
        frames.append(_prepend(table, facts | {"similarity_threshold": similarity}))
    if not frames:
        raise DataError(
            f"face_recognition.gate.forms {list(params.forms)}: there are too few clean pairs of the same person for "
            f"each of the rates {list(params.fprs)}; attack more images, or add a higher rate or the form detector"
        )
    result = pd.concat(frames, ignore_index=True)
    return result, result


def identify_through_gate(
    attack_embeddings: ShardStore,
    adaptive_embeddings: ShardStore | Absent,
    gate_scores: pd.DataFrame,
    representatives: Representatives,
    features: ShardStore,
    detectors: ShardStore,
    detector_summary: pd.DataFrame,
    face_recognition: FaceRecognitionParams,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure identification before and after the gate.

    Args:
        attack_embeddings: Embeddings of natural and attacked images.
        adaptive_embeddings: Embeddings of images of attacks that know the detector.
        gate_scores: Detector scores of natural and attacked images.
        representatives: Class representatives.
        features: Features of the training images.
        detectors: The trained detectors, for their clean scores.
        detector_summary: One row per trained detector.
        face_recognition: Galleries, number of neighbours, metric, false-positive rates of the detectors.

    Returns:
        Rows of :func:`adv_detect.measures.faces.gate.gate_table` after the columns gallery, detector, configuration,
        twice: for parquet and for CSV. Kinds: ``named_target`` (targeted: named as the person aimed at), ``misnamed``
        (untargeted: named as another person), ``false_reject`` (natural test images that are misnamed or flagged).
    """
    unaware = [natural_faces(attack_embeddings, TEST), *attacked_faces(attack_embeddings)]
    groups = [ProbeGroup(rows, EVERY, NO_BUDGET) for rows in unaware]
    groups += [] if isinstance(adaptive_embeddings, Absent) else adaptive_groups(adaptive_embeddings)
    chosen, frames = gate_detectors(detector_summary), []
    for kind in face_recognition.galleries:
        gallery = build_gallery(kind, representatives, features, face_recognition.metric)
        options = {"k": face_recognition.neighbours, "engine": face_recognition.engine}
        named = [identify(gallery, one.rows.embedding, **options) for one in groups]  # type: ignore[arg-type]
        for key, configuration in chosen.items():
            scores = _ScoresOf(gate_scores[gate_scores["detector"] == key])
            cases = [
                _named_cases(one, names, scores)
                for one, names in zip(groups, named, strict=True)
                if one.detector in (EVERY, key)
            ]
            thresholds = _thresholds(detectors, key, pd.DataFrame({"score": []}), face_recognition.gate.fprs)
            table = gate_table(pd.concat(cases, ignore_index=True), thresholds)
            frames.append(_prepend(table, {"gallery": kind, "detector": key, "configuration": configuration}))
    result = pd.concat(frames, ignore_index=True)
    return result, result


def _asks_twin(forms: Iterable[str]) -> bool:
    return any(form != GATE_DETECTOR for form in forms)


def _twin_thresholds(validation: pd.DataFrame, protocol: pd.DataFrame, params: GateParams) -> list[GateThreshold]:
    return similarity_thresholds(validation["twin_score"].to_numpy(dtype=np.float64), protocol, params.fprs)


def _cases(gate: Gate, pairs: pd.DataFrame, readers: dict[str, _ScoresOf]) -> pd.DataFrame:
    """Pairs that concern a gate: unaware attacks, and those on its detector; without one those on the first detector.

    Images of attacks on several detectors start from nearly the same ones, and would count several times.
    """
    if gate.detector:
        return readers[gate.detector].of_pairs(pairs[pairs["detector"].isin((EVERY, gate.detector))])
    first = pairs[pairs["detector"] != EVERY].groupby("attack", sort=False)["detector"].first()
    own = (pairs["detector"] == EVERY) | (pairs["detector"] == pairs["attack"].map(first))
    return pairs[own].assign(score=NOT_READ)


class _ScoresOf:
    """Scores of one detector by image."""

    def __init__(self, scores: pd.DataFrame) -> None:
        self._of = {
            condition: dict(zip(rows["source_id"], rows["score"], strict=True))
            for condition, rows in scores.groupby(["attack", "criterion"], sort=False, observed=True)
        }

    def natural(self, names: Iterable[str]) -> np.ndarray:
        """Give the scores of natural images."""
        return higher_scores(self._of[NATURAL, NO_CRITERION], names)

    def attacked(self, attack: str, criterion: str, names: Iterable[str]) -> np.ndarray:
        """Give the scores of attacked images."""
        return higher_scores(self._of.get((attack, criterion), {}), names)

    def of_pairs(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """Add the higher score of the two images, ``score``, of which the second is natural."""
        parts = []
        for (detector, attack, criterion), rows in pairs.groupby(["detector", "attack", "criterion"], sort=False):
            own = detector != EVERY
            probes = rows["probe_score"] if own else self.attacked(str(attack), str(criterion), rows["source_id"])
            parts.append(rows.assign(score=np.maximum(probes, self.natural(rows["reference_id"]))))
        return pd.concat(parts, ignore_index=True)


def _clean_pairs(store: ShardStore, classes: int, seed: int) -> pd.DataFrame:
    """Pair natural test images, each with another picture of the same person and with one of another person."""
    natural, test = natural_faces(store), natural_faces(store, TEST)
    target = draw_targets(test.label, classes, seed=seed, source_indices=test.source_index)
    sides = [replace(test, criterion=UNTARGETED), replace(test, criterion=TARGETED, target=target)]
    kinds = {DODGING: FALSE_REJECT, IMPERSONATION: FALSE_ACCEPT}
    pairs = attacked_pairs(natural, sides, seed=seed)
    return pairs.assign(criterion=NO_CRITERION, form=NO_CRITERION, kind=pairs["kind"].map(kinds))


def _decided(cases: pd.DataFrame, similarity: float) -> pd.DataFrame:
    """Add ``wrong``: accepted where people differ, rejected where they are the same."""
    accepted = cases["attacked_score"] >= similarity
    return cases.assign(wrong=np.where(cases["kind"].isin((DODGING, FALSE_REJECT)), ~accepted, accepted))


def _protocol_pairs(clean: pd.DataFrame, store: ShardStore, key: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Clean pairs with the higher score of their images, and the images with their folds and scores."""
    if not key:
        return clean.assign(detector_score=NOT_READ), pd.DataFrame()
    scores: dict[int, float] = {}
    for content in store.values():
        column = content.metadata["detectors"].index(key)
        found = content.tensors[SCORES][:, column].double().tolist()
        scores |= dict(zip(content.tensors["source_index"].tolist(), found, strict=True))
    sides = [clean["first_index"].tolist(), clean["second_index"].tolist()]
    pairs = clean.assign(detector_score=higher_scores(scores, *sides))
    long = pd.DataFrame({"index": [*sides[0], *sides[1]], "fold": [*clean["fold"], *clean["fold"]]})
    images = long.groupby("index")["fold"].agg(first_fold="min", last_fold="max").reset_index()
    return pairs, images.assign(score=higher_scores(scores, images["index"].tolist()))


def _thresholds(detectors: ShardStore, key: str, images: pd.DataFrame, fprs: tuple[float, ...]) -> list[GateThreshold]:
    clean = detectors.only(CLEAN_SCORES)[key].tensors[CLEAN_SCORES].double().numpy()
    return gate_thresholds(clean, images["score"].to_numpy(dtype=np.float64), fprs)


def _named_cases(group: ProbeGroup, named: np.ndarray, scores: _ScoresOf) -> pd.DataFrame:
    rows = group.rows
    unaware = group.detector == EVERY
    own = scores.attacked(rows.attack, rows.criterion, rows.source_ids) if unaware else group.scores
    if rows.attack == NATURAL:
        facts, wrong = clean_condition(FALSE_REJECT, KNOWN), named != rows.label.numpy()
    else:
        facts = {"attack": rows.attack, "criterion": rows.criterion, "form": rows.form, "knows": group.knows}
        facts |= group.budget
        facts |= {"people": KNOWN, "kind": IDENTIFIED[rows.criterion]}
        aimed = rows.criterion == TARGETED
        wrong = named == rows.target.numpy() if aimed else named != rows.label.numpy()
    scored = np.nan_to_num(own, nan=np.inf, posinf=np.inf)
    return pd.DataFrame({**facts, "wrong": wrong, "score": scored, "twin_score": NOT_READ})


def _prepend(table: pd.DataFrame, facts: dict[str, Any]) -> pd.DataFrame:
    return table.assign(**facts)[[*facts, *table.columns]]
