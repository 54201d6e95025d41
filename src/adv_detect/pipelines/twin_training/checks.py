"""Checks of twin_training before a run."""

from __future__ import annotations

from adv_detect.images import shape_of
from adv_detect.networks.target import TargetNetwork, build_target
from adv_detect.networks.twin import build_twin
from adv_detect.params import NetworkParams, TargetTrainingParams, TwinTrainingParams
from adv_detect.validation.run import Run


def check(run: Run) -> None:
    """Build the twin for the images and classes of the network under attack.

    Args:
        run: What is going to run.

    Raises:
        ConfigurationError: Architecture, arguments or checkpoint of the twin are not usable.
        CheckpointError: The checkpoint does not fit it.
    """
    params = run.read_block(TwinTrainingParams)
    if params is None or params.network is None:
        return
    target = _target(run)
    if target is not None:
        build_twin(target, params.network, head=params.losses[0], seed=0)


def _target(run: Run) -> TargetNetwork | None:
    """The network on disk where that is read, else one as configured, with weights of no meaning."""
    if "network_weights" in run.from_disk:
        network: TargetNetwork = run.catalog.load("network_weights")
        return network
    configured = run.block(NetworkParams)
    if configured is None:
        return None
    images, training = run.catalog.load("train_images"), run.block(TargetTrainingParams) or TargetTrainingParams()
    return build_target(
        configured, class_names=images.class_names, image_shape=shape_of(images), strict_head=not training.head_only
    )
