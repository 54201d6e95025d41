"""Bands of stored natural images."""

from __future__ import annotations

from adv_detect.algorithms.bands import NaturalBands, natural_bands
from adv_detect.algorithms.detectors import Activations
from adv_detect.algorithms.representatives import Representatives
from adv_detect.jobs.activations import natural_activations
from adv_detect.jobs.detectors import LEARNING_SPLITS
from adv_detect.sharding import ShardStore


def stored_bands(activations: ShardStore, representatives: Representatives) -> NaturalBands:
    """Measure the natural images of the train and validation splits, which the representatives do not come from.

    Args:
        activations: Of natural images.
        representatives: Class representatives of the network under attack.

    Returns:
        The bands.
    """
    splits = (natural_activations(activations, split).keep(views=(), twin=False) for split in LEARNING_SPLITS)
    return natural_bands(Activations.concatenate(splits), representatives)
