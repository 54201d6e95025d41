"""The work on one shard of features; runs in this process or in a worker."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from adv_detect.algorithms.device import resolve_device
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.finite import finite_rows
from adv_detect.images import ImageSet, load_images
from adv_detect.networks.frozen import working_form
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import RuntimeParams
from adv_detect.sharding import ShardContent

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassBlock:
    """Some images of one class.

    Attributes:
        label: The class.
        indices: Positions in the image set.
    """

    label: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class FeatureWork:
    """Reads images, runs the network and keeps the features of those it classifies correctly."""

    images: ImageSet
    network: TargetNetwork
    runtime: RuntimeParams

    def __call__(self, block: ClassBlock) -> ShardContent:
        """Make one shard: a tensor ``layer.<number>`` of shape ``(n, D_l)`` per layer and ``source_index`` ``(n,)``."""
        device = resolve_device(self.runtime.device)
        network = working_form(self.network, device)
        parts = [
            self._batch(network, block, start, device)
            for start in range(0, len(block.indices), self.runtime.batch_size)
        ]
        tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        kept = tensors["source_index"].tolist()
        return ShardContent(
            tensors=tensors,
            metadata={"label": block.label, "seen": len(block.indices), "source_ids": self._names(kept)},
        )

    def _names(self, indices: list[int]) -> list[str]:
        return [self.images.source_ids[index] for index in indices]

    @torch.no_grad()
    def _batch(self, network: TargetNetwork, block: ClassBlock, start: int, device: torch.device) -> dict[str, Tensor]:
        indices = block.indices[start : start + self.runtime.batch_size]
        batch = load_images(self.images, indices, network.spec.bounds).to(device)
        logits, features = extract_features(network, batch, network.spec.layers)
        correct = logits.argmax(dim=1) == block.label
        sound = finite_rows(logits, *features)
        if not bool(sound.all()):
            LOGGER.warning(
                "features: %d of %d images of class %r left out: NaN or infinity in their logits or features",
                int((~sound).sum()), len(sound), network.spec.class_names[block.label],
            )  # fmt: skip
        kept = correct & sound
        tensors = {f"layer.{number:03d}": layer[kept].cpu() for number, layer in enumerate(features)}
        return tensors | {"source_index": torch.tensor(indices)[kept.cpu()]}
