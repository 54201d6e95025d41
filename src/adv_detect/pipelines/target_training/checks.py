"""Checks of target_training before a run."""

from __future__ import annotations

from pathlib import Path

from adv_detect.errors import ConfigurationError, DataError
from adv_detect.networks.readings import log_readings
from adv_detect.networks.weights import head_name
from adv_detect.params import NetworkParams, TargetTrainingParams
from adv_detect.validation.run import Run

FEWEST_CLASSES = 2


def check(run: Run) -> None:
    """Build the network for the training images.

    Args:
        run: What is going to run.

    Raises:
        ConfigurationError: The network, a layer or a value of the training is not usable.
        CheckpointError: The checkpoint does not fit the network.
        DataError: The images have too few classes.
    """
    params = run.read_block(NetworkParams)
    if params is None:
        return
    if params.checkpoint is not None and not Path(params.checkpoint).is_file():
        raise ConfigurationError(f"network.checkpoint: expected an existing file, got {params.checkpoint!r}")
    images = run.catalog.load("train_images")
    training = run.block(TargetTrainingParams) or TargetTrainingParams()
    if len(images.class_names) < FEWEST_CLASSES:
        raise DataError(f"train_images: expected at least {FEWEST_CLASSES} classes, got {len(images.class_names)}")
    log_readings(run.target.spec.readings)
    if training.head_only and head_name(run.target.network) is None:
        raise ConfigurationError(
            f"target_training.head_only: expected false, as {params.name} has no linear layer that gives its "
            "logits, got True"
        )
