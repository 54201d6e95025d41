"""Nodes on the images of attacks that know the detector, where such images lie on disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from adv_detect.absent import ABSENT, Absent
from adv_detect.algorithms.detectors.stored import CLEAN_SCORES
from adv_detect.algorithms.thresholds import thresholds_at_fpr
from adv_detect.measures.faces.gate import NOTHING, gate_detectors
from adv_detect.names import GATE_DETECTOR, KNOWS, TWIN_DIGEST
from adv_detect.networks.target import TargetNetwork, target_digest
from adv_detect.params import FaceRecognitionParams, RuntimeParams
from adv_detect.pipelines.face_recognition.embedders import plan_embedder
from adv_detect.pipelines.face_recognition.embedding_shards import AdaptiveFaceWork
from adv_detect.pipelines.face_recognition.rows import FaceRows
from adv_detect.sharding import ShardPlan, ShardSpec, ShardStore, fingerprint

LOGGER = logging.getLogger(__name__)
NO_BUDGET: dict[str, Any] = {"norm": "none", "epsilon": float("nan")}
EVERY = ""
"""In the place of a detector: the attack was made without any."""
USUAL = 0.05
GROUP = ("detector", "attack", "norm", "epsilon", "criterion")


def embed_adaptive_faces(
    known_adversarials: ShardStore | Absent,
    detectors: ShardStore,
    detector_summary: pd.DataFrame,
    network_weights: TargetNetwork,
    twin: TargetNetwork | Absent,
    face_recognition: FaceRecognitionParams,
    runtime: RuntimeParams,
) -> ShardPlan | Absent:
    """Plan the embeddings of the images of adaptive attacks on the detectors of the gate.

    Args:
        known_adversarials: What ``adaptive_attack`` left on disk; absent where it has not run.
        detectors: The trained detectors.
        detector_summary: One row per trained detector.
        network_weights: The network whose last layer is the embedding.
        twin: The second network, which a gate may ask.
        face_recognition: Whether mirror images count, and whether the twin is asked.
        runtime: Batch size, device, engine.

    Returns:
        A plan with one shard per shard of images; absent where there is none. Images of attacks on detectors that were
        trained anew since are left out, with a warning.
    """
    if isinstance(known_adversarials, Absent):
        return ABSENT
    embedder = plan_embedder(network_weights, twin, face_recognition, runtime)
    second = None if isinstance(twin, Absent) else target_digest(twin, layers=False)
    keys = _current(known_adversarials, detectors, set(gate_detectors(detector_summary)), second)
    work = AdaptiveFaceWork(known_adversarials, embedder)
    shards = tuple(
        ShardSpec(key, fingerprint(embedder.identity, known_adversarials.fingerprint(key)), key) for key in sorted(keys)
    )
    plan = ShardPlan(work=work, shards=shards, runtime=runtime, description="embeddings of adaptively attacked faces")
    return plan if shards else ABSENT


def _current(store: ShardStore, detectors: ShardStore, wanted: set[str], twin: str | None) -> list[str]:
    """Find the shards of attacks on detectors of the gate, and where they ask it on the twin, as they are now."""
    clean = detectors.only(CLEAN_SCORES)
    found, old = [], set()
    for key in store:
        facts = store.metadata(key)
        name = str(facts["detector"])
        if name not in wanted:
            continue
        threshold = thresholds_at_fpr(clean[name].tensors[CLEAN_SCORES], [USUAL])[USUAL]
        same = np.isclose(threshold, float(facts["threshold_fpr_05"]), rtol=1e-6, atol=1e-9)
        if same and facts.get(TWIN_DIGEST, twin) == twin:
            found.append(key)
        else:
            old.add(name)
    if old:
        LOGGER.warning(
            "face_recognition: adaptive attacks on %s are left out of the gate: these detectors, or the twin, were "
            "trained anew since; attack them with: kedro run --pipeline=adaptive_attack",
            ", ".join(sorted(old)),
        )
    return found


@dataclass(frozen=True)
class ProbeGroup:
    """Images of one attack.

    Attributes:
        rows: The images.
        detector: Key of the detector that the attack knew; empty where it knew none.
        budget: ``norm`` and ``epsilon``.
        scores: Scores of that detector ``(n,)``; empty where the attack knew none.
        knows: Form of the gate that the attack was made against.
    """

    rows: FaceRows
    detector: str
    budget: dict[str, Any]
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))
    knows: str = NOTHING


def adaptive_groups(store: ShardStore) -> Iterator[ProbeGroup]:
    """Read embeddings of adaptive attacks, one detector, attack, budget and criterion at a time.

    Args:
        store: Shards of :class:`adv_detect.pipelines.face_recognition.embedding_shards.AdaptiveFaceWork`.

    Yields:
        The groups.
    """
    grouped: dict[tuple[Any, ...], list[Any]] = {}
    for content in store.values():
        key = (*(content.metadata[name] for name in GROUP), content.metadata.get(KNOWS, GATE_DETECTOR))
        grouped.setdefault(key, []).append(content)
    for (detector, _, norm, epsilon, _, knows), contents in grouped.items():
        scores = torch.cat([one.tensors["detector_score"] for one in contents]).double().numpy()
        budget = {"norm": norm, "epsilon": float("nan") if epsilon is None else float(epsilon)}
        yield ProbeGroup(FaceRows.of(contents), detector, budget, scores, knows)
