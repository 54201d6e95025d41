"""Block ``target_training``: training of the network under attack."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adv_detect.fields import Block, Count, Decay, LearningRate


class NetworkFitParams(Block):
    """Epochs, batches, optimiser, schedule and augmentation with which any network is trained."""

    epochs: Count = 10
    batch_size: Count = 64
    learning_rate: LearningRate = 1e-3
    weight_decay: Decay = 0.0
    optimizer: Literal["adam", "sgd"] = "adam"
    schedule: Literal["constant", "cosine", "onecycle"] = "onecycle"
    augmentation: Literal["none", "shift", "crop_flip"] = "none"
    autocast: bool = False
    workers: int = Field(0, ge=0, le=1024)


class TargetTrainingParams(NetworkFitParams):
    """Training of a network under attack that has no checkpoint."""

    head_only: bool = False
    min_accuracy: float = Field(0.0, ge=0, le=1)
