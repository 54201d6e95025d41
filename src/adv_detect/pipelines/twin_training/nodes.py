"""Nodes that train a twin of the network under attack."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np

from adv_detect.absent import ABSENT, Absent
from adv_detect.algorithms.device import resolve_device
from adv_detect.algorithms.fitting import Checkpoint, FitSettings
from adv_detect.algorithms.splits import interleave
from adv_detect.algorithms.twin_training import CHOSEN_BY, HeldOut, fit_twin, measure_robustness
from adv_detect.datasets.selection import ImageSubset
from adv_detect.deferred import Resumable
from adv_detect.errors import DataError
from adv_detect.images import ImageSet, image_set_identity, load_images
from adv_detect.networks.finite import check_finite
from adv_detect.networks.registry import network_source
from adv_detect.networks.target import TargetNetwork, target_digest
from adv_detect.networks.twin import build_twin
from adv_detect.params import SAME, RuntimeParams, TwinNetworkParams, TwinTrainingParams
from adv_detect.sharding import fingerprint

LOGGER = logging.getLogger(__name__)
LARGEST_SHARE = 5
"""At most one in so many training images is held out."""
FIGURES = ("held_out_accuracy", "held_out_robust_accuracy", CHOSEN_BY)


def train_twin(
    train_images: ImageSet,
    network_weights: TargetNetwork,
    twin_training: TwinTrainingParams,
    runtime: RuntimeParams,
) -> Resumable[TargetNetwork] | Absent:
    """Train a second network for the same task adversarially; skipped when the one on disk was made in the same way.

    Args:
        train_images: Images to train on; some of them are held out to choose epoch and loss by.
        network_weights: The network under attack, which stays as it is.
        twin_training: Architecture, attack, loss and optimiser.
        runtime: Seed, device, whether progress is shown.

    Returns:
        The twin, made when it is saved; absent where none is configured.
    """
    network = twin_training.network
    if network is None:
        return ABSENT

    def make(checkpoint: Checkpoint | None = None) -> TargetNetwork:
        return _best(train_images, network_weights, network, twin_training, runtime, checkpoint)

    training = twin_training.model_dump(exclude={"min_accuracy"})
    identity = fingerprint(_origin(network_weights, network), training, runtime.seed, image_set_identity(train_images))
    return Resumable(fingerprint=identity, make=make, check=partial(_check_accuracy, params=twin_training))


def describe_twin(twin: TargetNetwork | Absent) -> tuple[dict[str, Any], dict[str, float]]:
    """Say what the twin is and how robust it is on the training images that it did not learn from.

    Args:
        twin: The twin.

    Returns:
        A description for people (architecture, history) and the metrics for the tracking server; both empty where
        there is no twin.
    """
    if isinstance(twin, Absent):
        return {}, {}
    spec = twin.spec.model_dump(mode="json")
    description = spec | {"parameters": sum(one.numel() for one in twin.parameters())}
    best = _best_row(twin.spec.history)
    return description, {f"twin_{name}": best[name] for name in FIGURES if name in best}


def _best(
    images: ImageSet,
    target: TargetNetwork,
    network: TwinNetworkParams,
    params: TwinTrainingParams,
    runtime: RuntimeParams,
    checkpoint: Checkpoint | None,
) -> TargetNetwork:
    """Train one twin per loss and keep the one that detects better on held-out images."""
    settings = FitSettings(seed=runtime.seed, device=resolve_device(runtime.device), progress=runtime.progress)
    learned, held_out = _divided(images, target, params, runtime)
    twins = []
    for head in params.losses:
        twin = build_twin(target, network, head=head, seed=runtime.seed)
        part = None if checkpoint is None else checkpoint.part(head)
        history = fit_twin(twin, learned, held_out, params=params, settings=settings, checkpoint=part)
        if not history and held_out is not None:
            history = [measure_robustness(twin.freeze().to(settings.device), held_out, params, settings)]
        check_finite(twin.network, twin.network.state_dict(), "twin_training")
        best = _best_row(history)
        twin = twin.with_spec(accuracy=best.get(FIGURES[0]), history=tuple(history)).freeze().cpu()
        LOGGER.info(
            "twin_training: %s, %s", head, ", ".join(f"{name} {best[name]:.3f}" for name in FIGURES if name in best)
        )
        twins.append(twin)
    return max(twins, key=lambda one: _best_row(one.spec.history).get(CHOSEN_BY, 0.0))


def _divided(
    images: ImageSet, target: TargetNetwork, params: TwinTrainingParams, runtime: RuntimeParams
) -> tuple[ImageSet, HeldOut | None]:
    """Keep some training images aside, of every class as many as it has images."""
    count = min(params.holdout, len(images) // LARGEST_SHARE)
    if not count:
        return images, None
    order = interleave(images.labels.numpy(), np.random.default_rng(runtime.seed))
    aside, rest = np.sort(order[:count]).tolist(), np.sort(order[count:]).tolist()
    held_out = HeldOut(load_images(images, aside, target.spec.bounds), images.labels[aside])
    return ImageSubset(images, rest), held_out


def _check_accuracy(twin: TargetNetwork, params: TwinTrainingParams) -> None:
    accuracy = twin.spec.accuracy
    if accuracy is not None and accuracy < params.min_accuracy:
        raise DataError(
            f"twin_training: expected an accuracy of at least {params.min_accuracy:.3f} on held-out training images, "
            f"got {accuracy:.3f}; train longer, lower epsilon or the learning rate, or lower "
            "twin_training.min_accuracy, which keeps what was trained"
        )


def _best_row(history: Any) -> dict[str, float]:
    """The epoch whose weights were kept: the first with the best figure of the held-out images."""
    measured = [row for row in history if CHOSEN_BY in row]
    return max(measured, key=lambda row: row[CHOSEN_BY]) if measured else {}


def _origin(target: TargetNetwork, network: TwinNetworkParams) -> list[Any]:
    """Name the ingredients of a twin before it learns."""
    from pathlib import Path

    file = Path(network.checkpoint) if network.checkpoint else None
    stamp = None if file is None else [file.stat().st_size, file.stat().st_mtime_ns]
    if network.name == SAME:
        return [target_digest(target, layers=False), stamp]
    spec = target.spec
    return [network_source(network.name), spec.class_names, spec.image_shape, spec.bounds, spec.preprocessing, stamp]
