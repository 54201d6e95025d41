"""Nodes that read features of the training images."""

from __future__ import annotations

from adv_detect.images import ImageSet, image_set_identity, members_by_class
from adv_detect.names import FeatureKey
from adv_detect.networks.target import TargetNetwork, target_digest
from adv_detect.params import FeatureExtractionParams, RuntimeParams
from adv_detect.pipelines.feature_extraction.feature_shards import ClassBlock, FeatureWork
from adv_detect.sharding import ShardPlan, ShardSpec, fingerprint


def extract_class_features(
    train_images: ImageSet,
    network_weights: TargetNetwork,
    feature_extraction: FeatureExtractionParams,
    runtime: RuntimeParams,
) -> ShardPlan:
    """Plan the features of correctly classified training images, one or more shards per class.

    Args:
        train_images: Images to read features from.
        network_weights: The network under attack.
        feature_extraction: How many images per class.
        runtime: Shard size, batch size, device, engine.

    Returns:
        A plan whose shards ``<class>/<number>`` hold one ``(n, D_l)`` tensor per layer and the source indices.
    """
    made_from = (target_digest(network_weights), image_set_identity(train_images))
    shards = []
    for label, found in members_by_class(train_images.labels.numpy()).items():
        members = found[: feature_extraction.max_images_per_class].tolist()
        for number, block in enumerate(_blocks(members, runtime.shard_size)):
            names = [train_images.source_ids[index] for index in block]
            shards.append(
                ShardSpec(
                    key=FeatureKey(label, number).text,
                    fingerprint=fingerprint(made_from, label, names),
                    arguments=ClassBlock(label=label, indices=tuple(block)),
                )
            )
    work = FeatureWork(images=train_images, network=network_weights, runtime=runtime)
    return ShardPlan(work=work, shards=tuple(shards), runtime=runtime, description="features")


def _blocks(members: list[int], size: int) -> list[list[int]]:
    return [members[start : start + size] for start in range(0, len(members), size)]
