"""Nodes that compute class representatives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from adv_detect.algorithms.representatives import Representatives, fit_representatives
from adv_detect.lazy import Lazy
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import RepresentativesParams, RuntimeParams
from adv_detect.progress import track
from adv_detect.sharding import ShardStore, fingerprint


def compute_representatives(
    features: ShardStore,
    network_weights: TargetNetwork,
    representatives: RepresentativesParams,
    runtime: RuntimeParams,
) -> Lazy[Representatives]:
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
        labels = track(range(len(spec.class_names)), "representatives", unit="classes", shown=runtime.progress)
        return fit_representatives(
            _by_class(features, labels, len(spec.layers)),
            layers=spec.layers,
            class_names=spec.class_names,
            params=representatives,
        )

    ingredients = fingerprint(features.fingerprints(), spec.layers, spec.class_names, representatives)
    return Lazy(fingerprint=ingredients, make=make)


def _by_class(
    features: ShardStore, labels: Iterable[int], layers: int
) -> Iterator[tuple[int, list[Tensor], list[str]]]:
    """Give class, features ``(n, D_l)`` per layer and source ids, class by class."""
    for label in labels:
        contents = [features.read(key) for key in features.keys(f"{label:05d}/")]
        if not contents:
            continue
        names = [name for content in contents for name in content.metadata["source_ids"]]
        tensors = [
            torch.cat([content.tensors[f"layer.{layer:03d}"] for content in contents]) for layer in range(layers)
        ]
        yield label, tensors, names
