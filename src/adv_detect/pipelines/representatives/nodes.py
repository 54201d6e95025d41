"""Nodes that compute class representatives."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import torch
from torch import Tensor

from adv_detect.algorithms.representatives import Representatives, fit_representatives
from adv_detect.deferred import Deferred
from adv_detect.names import FeatureKey
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import RepresentativesParams, RuntimeParams
from adv_detect.progress import track
from adv_detect.sharding import ShardStore, fingerprint


def compute_representatives(
    features: ShardStore,
    network_weights: TargetNetwork,
    representatives: RepresentativesParams,
    runtime: RuntimeParams,
) -> Deferred[Representatives]:
    """Compute medoids, centroids and whitening from the features, one class in memory at a time.

    Skipped when those on disk came from the same features and parameters.

    Args:
        features: Shards of features per class.
        network_weights: The network under attack, for its layers and class names.
        representatives: Shrinkage and memory budget.
        runtime: Whether progress is shown.

    Returns:
        The representatives of every layer, made when they are saved.
    """
    spec = network_weights.spec

    def make() -> Representatives:
        return fit_representatives(
            lambda: _by_class(features, len(spec.layers), shown=runtime.progress),
            layers=spec.layers,
            class_names=spec.class_names,
            params=representatives,
        )

    ingredients = fingerprint(features.fingerprints(), spec.layers, spec.class_names, representatives)
    return Deferred(fingerprint=ingredients, make=make)


def _by_class(features: ShardStore, layers: int, *, shown: bool) -> Iterator[tuple[int, list[Tensor], list[str]]]:
    """Give class, features ``(n, D_l)`` per layer and source ids, class by class; the store is listed once."""
    classes = [(label, list(keys)) for label, keys in groupby(features, key=lambda key: FeatureKey.parse(key).label)]
    for label, keys in track(classes, "representatives", unit="classes", shown=shown):
        contents = [features[key] for key in keys]
        names = [name for content in contents for name in content.metadata["source_ids"]]
        tensors = [
            torch.cat([content.tensors[f"layer.{layer:03d}"] for content in contents]) for layer in range(layers)
        ]
        yield label, tensors, names
