"""Nodes that score faces with the detectors of the gate."""

from __future__ import annotations

import pandas as pd

from adv_detect.absent import Absent
from adv_detect.algorithms.detectors import score_activations
from adv_detect.algorithms.image_changes import change_identity
from adv_detect.algorithms.representatives import Representatives, representatives_digest
from adv_detect.images import ImageSet, image_set_identity
from adv_detect.jobs.activation_plans import twin_that_is_read
from adv_detect.jobs.activations import read_activations
from adv_detect.jobs.detectors import configurations_of, restore, views_of
from adv_detect.measures.faces.gate import gate_detectors
from adv_detect.networks.target import TargetNetwork, target_digest
from adv_detect.params import RuntimeParams
from adv_detect.pipelines.face_recognition.embedders import check_shape
from adv_detect.pipelines.face_recognition.embedding_shards import pair_shards
from adv_detect.pipelines.face_recognition.gate_shards import PairImageWork
from adv_detect.pipelines.face_recognition.rows import TEST
from adv_detect.progress import track
from adv_detect.sharding import ShardPlan, ShardStore


def score_gate_images(
    activations: ShardStore,
    detectors: ShardStore,
    detector_summary: pd.DataFrame,
    representatives: Representatives,
    runtime: RuntimeParams,
) -> pd.DataFrame:
    """Score the natural images of all splits and the attacked test images with the detectors of the gate.

    Args:
        activations: Activations of natural and attacked images.
        detectors: The trained detectors.
        detector_summary: One row per trained detector.
        representatives: Class representatives.
        runtime: Whether progress is shown.

    Returns:
        One row per image and detector: detector, attack, criterion, source_id, score.
    """
    scoring = [restore(detectors, key, representatives) for key in gate_detectors(detector_summary)]
    wanted = sorted({*activations.select(natural=True), *activations.select(split=TEST)})
    frames = []
    for key in track(wanted, "detector scores of faces", unit="shards", shown=runtime.progress):
        content = activations[key]
        images = read_activations(content)
        facts = {name: content.metadata[name] for name in ("attack", "criterion")}
        facts["source_id"] = content.metadata["source_ids"]
        frames += [
            pd.DataFrame(
                {"detector": one.key, **facts, "score": score_activations(one.detector, images).double().numpy()}
            )
            for one in scoring
        ]
    return pd.concat(frames, ignore_index=True)


def score_pair_images(
    verification_images: ImageSet,
    verification_pair_table: pd.DataFrame,
    network_weights: TargetNetwork,
    representatives: Representatives,
    twin: TargetNetwork | Absent,
    detectors: ShardStore,
    detector_summary: pd.DataFrame,
    runtime: RuntimeParams,
) -> ShardPlan:
    """Plan the detector scores of the images that occur in pairs.

    Args:
        verification_images: Images of the people to verify.
        verification_pair_table: The pairs.
        network_weights: The network under attack.
        representatives: Its class representatives.
        twin: The second network.
        detectors: The trained detectors.
        detector_summary: One row per trained detector; decides which of them stand in the gate.
        runtime: Shard size, batch size, device, engine.

    Returns:
        A plan with shards ``<number>``.
    """
    check_shape(verification_images, network_weights)
    keys = tuple(gate_detectors(detector_summary))
    configurations, views = configurations_of(detectors), views_of(detectors)
    second = twin_that_is_read(twin, {key: configurations[key] for key in keys})
    work = PairImageWork(verification_images, network_weights, representatives, detectors, keys, runtime, second, views)
    made_from = (
        target_digest(network_weights), representatives_digest(representatives),
        image_set_identity(verification_images),
        [(key, detectors.fingerprint(key)) for key in keys],
        None if second is None else target_digest(second, layers=False),
        {name: change_identity(one) for name, one in views.items()},
    )  # fmt: skip
    shards = pair_shards(verification_images, verification_pair_table, made_from, runtime)
    return ShardPlan(work=work, shards=shards, runtime=runtime, description="detector scores of images in pairs")
