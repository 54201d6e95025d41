"""Nodes that provide the network under attack."""

from __future__ import annotations

from functools import partial
from typing import Any

from adv_detect.algorithms.device import resolve_device
from adv_detect.algorithms.fitting import Checkpoint, FitSettings
from adv_detect.algorithms.target_training import fit_head, fit_target, measure_accuracy
from adv_detect.deferred import Resumable
from adv_detect.errors import DataError
from adv_detect.images import ImageSet, image_set_identity, shape_of
from adv_detect.networks.finite import check_finite
from adv_detect.networks.registry import network_source
from adv_detect.networks.target import TargetNetwork, build_target
from adv_detect.params import NetworkParams, RuntimeParams, TargetTrainingParams
from adv_detect.pictures import Transform
from adv_detect.sharding import fingerprint


def train_target(
    train_images: ImageSet,
    test_images: ImageSet,
    network: NetworkParams,
    target_training: TargetTrainingParams,
    runtime: RuntimeParams,
) -> Resumable[TargetNetwork]:
    """Train the network, or read its checkpoint; skipped when the result on disk was made in the same way.

    Args:
        train_images: Images to train on.
        test_images: Images on which the accuracy is measured.
        network: The network and where its weights are.
        target_training: How it is trained when there is no checkpoint.
        runtime: Seed, device, batch size.

    Returns:
        The network, made when it is saved.
    """

    def make(checkpoint: Checkpoint | None = None) -> TargetNetwork:
        target = build_target(
            network,
            class_names=train_images.class_names,
            image_shape=shape_of(train_images),
            seed=runtime.seed,
            strict_head=not target_training.head_only,
            pictures=getattr(train_images, "pictures", None),
        )
        history = _fit(target, train_images, network, target_training, runtime, checkpoint)
        check_finite(target.network, target.network.state_dict(), "target_training")
        return _with_accuracy(target, test_images, history, runtime)

    identity = _identity(train_images, test_images, network, target_training, runtime)
    return Resumable(fingerprint=identity, make=make, check=partial(_check_accuracy, params=target_training))


def describe_target(network_weights: TargetNetwork) -> tuple[dict[str, Any], dict[str, float]]:
    """Say what the network under attack is and how good it is.

    Args:
        network_weights: The network under attack.

    Returns:
        A description for people (name, layers, accuracy, history) and the metrics for the tracking server.
    """
    spec = network_weights.spec
    description = spec.model_dump(mode="json") | {"parameters": sum(p.numel() for p in network_weights.parameters())}
    return description, {"target_accuracy": float(spec.accuracy or 0.0)}


def _fit(
    target: TargetNetwork,
    images: ImageSet,
    network: NetworkParams,
    params: TargetTrainingParams,
    runtime: RuntimeParams,
    checkpoint: Checkpoint | None,
) -> list[dict[str, float]]:
    """Train the whole network, its head alone, or nothing where a checkpoint holds both."""
    settings = FitSettings(seed=runtime.seed, device=resolve_device(runtime.device), progress=runtime.progress)
    if params.head_only:
        return fit_head(target, images, params=params, batch_size=runtime.batch_size, settings=settings)
    if network.checkpoint is not None:
        return []
    return fit_target(target, images, params=params, settings=settings, checkpoint=checkpoint)


def _with_accuracy(
    target: TargetNetwork,
    images: ImageSet,
    history: list[dict[str, float]],
    runtime: RuntimeParams,
) -> TargetNetwork:
    accuracy = measure_accuracy(
        target.freeze(),
        images,
        batch_size=runtime.batch_size,
        device=resolve_device(runtime.device),
        progress=runtime.progress,
    )
    return target.with_spec(accuracy=accuracy, history=tuple(history))


def _check_accuracy(target: TargetNetwork, params: TargetTrainingParams) -> None:
    accuracy = target.spec.accuracy or 0.0
    if accuracy < params.min_accuracy:
        raise DataError(
            f"target_training: expected an accuracy of at least {params.min_accuracy:.3f} on the test images, got "
            f"{accuracy:.3f}; train longer, check the checkpoint and its preprocessing, or lower "
            "target_training.min_accuracy, which keeps what was trained"
        )


def _identity(
    train_images: ImageSet,
    test_images: ImageSet,
    network: NetworkParams,
    params: TargetTrainingParams,
    runtime: RuntimeParams,
) -> str:
    from pathlib import Path

    file = Path(network.checkpoint) if network.checkpoint else None
    stamp = None if file is None else [file.stat().st_size, file.stat().st_mtime_ns]
    training = params.model_dump(exclude={"min_accuracy"}) if file is None or params.head_only else None
    return fingerprint(
        network_source(network.name),
        network,
        stamp,
        training,
        runtime.seed,
        image_set_identity(train_images),
        image_set_identity(test_images),
        *_shaping(train_images),
    )


def _shaping(images: ImageSet) -> list[Transform]:
    """Give the steps of picture files where they resize or crop: a network stored without them is made again."""
    steps: Transform | None = getattr(images, "pictures", None)
    return [] if steps is None or steps == Transform(colour=steps.colour) else [steps]
