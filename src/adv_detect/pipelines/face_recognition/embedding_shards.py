"""The work on one shard of embeddings; runs in this process or in a worker."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from adv_detect.algorithms.attacks.deep_features import last_features
from adv_detect.algorithms.device import resolve_device
from adv_detect.images import ImageSet, load_images
from adv_detect.measures.faces.verification import add_mirrored
from adv_detect.names import GATE_DETECTOR, KNOWS
from adv_detect.networks.frozen import working_form
from adv_detect.networks.target import TargetNetwork, target_digest
from adv_detect.params import RuntimeParams
from adv_detect.sharding import ShardContent, ShardSpec, ShardStore, fingerprint

MISSING = -1
"""In the place of an index: the image of a pair does not exist."""
EMBEDDING = "embedding"
TEMPLATE = "template"
TWIN_TEMPLATE = "twin_template"
ADAPTIVE = "adaptive"
"""Form of attacks that know the detector."""
ADAPTIVE_KEPT = ("source_index", "label", "target", "detector_score")
ADAPTIVE_FACTS = ("detector", "attack", "norm", "epsilon", "criterion", "source_ids")
KEPT = ("source_index", "label", "target", "success", "predicted")


def pair_shards(
    images: ImageSet, pairs: pd.DataFrame, made_from: tuple[object, ...], runtime: RuntimeParams
) -> tuple[ShardSpec, ...]:
    """Cut the images that occur in pairs into shards.

    Args:
        images: The set.
        pairs: One row per pair, with ``first_index`` and ``second_index``.
        made_from: What decides the content of a shard beside its images.
        runtime: Shard size.

    Returns:
        Shards ``<number>`` of source indices.
    """
    there = pairs[pairs["first_index"] != MISSING]
    indices = sorted(set(there["first_index"]) | set(there["second_index"]))
    shards = []
    for number, start in enumerate(range(0, len(indices), runtime.shard_size)):
        block = tuple(int(index) for index in indices[start : start + runtime.shard_size])
        names = [images.source_ids[index] for index in block]
        shards.append(ShardSpec(f"{number:05d}", fingerprint(made_from, names), block))
    return tuple(shards)


@dataclass(frozen=True)
class Embedder:
    """Reads the last layer.

    Attributes:
        network: The network under attack.
        mirror: Whether the template is the embedding of the image plus that of its mirror image.
        runtime: Batch size, device.
        twin: The second network, of which the last layer is read too; None where the gate does not ask it.
    """

    network: TargetNetwork
    mirror: bool
    runtime: RuntimeParams
    twin: TargetNetwork | None = None

    @property
    def identity(self) -> tuple[object, ...]:
        """Fingerprint of all that decides the embeddings of an image."""
        own = (target_digest(self.network), self.mirror)
        return own if self.twin is None else (*own, target_digest(self.twin))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Embed images ``(N, channels, H, W)`` within the network's bounds.

        Returns:
            ``embedding``, the pooled features of the last layer, and ``template``, what verification compares; both
            ``(N, D)``, on the CPU; with a twin its ``twin_template`` ``(N, D')``.
        """
        embedding, template = self._embed(self.network, images)
        found = {EMBEDDING: embedding, TEMPLATE: template}
        return found if self.twin is None else found | {TWIN_TEMPLATE: self._embed(self.twin.freeze(), images)[1]}

    def _embed(self, network: TargetNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the last layer, and templates, ``(N, D)`` each."""
        device = resolve_device(self.runtime.device)
        features = last_features(working_form(network, device), network.spec.layers)
        parts: list[tuple[Tensor, Tensor]] = []
        for batch in torch.split(images, self.runtime.batch_size):
            own = features(batch.to(device))
            template = add_mirrored(own, features(batch.to(device).flip(-1))) if self.mirror else own
            parts.append((own.cpu(), template.cpu()))
        embedding, templates = (torch.cat(side) for side in zip(*parts, strict=True))
        return embedding, templates


@dataclass(frozen=True)
class FaceWork:
    """Embeds images of a set, read batch by batch."""

    images: ImageSet
    embedder: Embedder

    def __call__(self, indices: tuple[int, ...]) -> ShardContent:
        """Make one shard: ``embedding``, ``template``, with a twin ``twin_template``, and ``source_index`` ``(n,)``."""
        size = self.embedder.runtime.batch_size
        bounds = self.embedder.network.spec.bounds
        batches = [indices[start : start + size] for start in range(0, len(indices), size)]
        parts = [self.embedder(load_images(self.images, batch, bounds)) for batch in batches]
        tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        names = [self.images.source_ids[index] for index in indices]
        return ShardContent(tensors | {"source_index": torch.tensor(indices)}, {"source_ids": names})


@dataclass(frozen=True)
class AttackedFaceWork:
    """Embeds stored images, natural or attacked."""

    adversarials: ShardStore
    embedder: Embedder

    def __call__(self, key: str) -> ShardContent:
        """Make one shard: ``embedding``, ``template``, with a twin ``twin_template``, and the columns of `KEPT`."""
        stored = self.adversarials[key]
        images = stored.tensors["images"]
        embedded = self.embedder(images) if len(images) else self._nothing(images)
        return ShardContent(embedded | {name: stored.tensors[name] for name in KEPT}, stored.metadata)

    def _nothing(self, images: Tensor) -> dict[str, Tensor]:
        """Empty tensors of the right width, where an attack had no image to start from."""
        shape = self.embedder.network.spec.image_shape
        return {name: found[:0] for name, found in self.embedder(images.new_zeros((1, *shape))).items()}


@dataclass(frozen=True)
class AdaptiveFaceWork:
    """Embeds the images of attacks that know the detector."""

    adversarials: ShardStore
    embedder: Embedder

    def __call__(self, key: str) -> ShardContent:
        """Make one shard: ``embedding``, ``template`` ``(n, D)``, the columns of `ADAPTIVE_KEPT` and ``success``."""
        stored = self.adversarials[key]
        kept = {name: stored.tensors[name] for name in ADAPTIVE_KEPT}
        tensors = self.embedder(stored.tensors["images"]) | kept | {"success": stored.tensors["fooled"]}
        facts = {name: stored.metadata[name] for name in ADAPTIVE_FACTS}
        known = stored.metadata.get(KNOWS, GATE_DETECTOR)
        return ShardContent(tensors, facts | {"form": ADAPTIVE, KNOWS: known})
