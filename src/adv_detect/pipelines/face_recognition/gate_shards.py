"""The work on one shard of detector scores of images in pairs; runs in this process or in a worker."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.algorithms.device import resolve_device
from adv_detect.algorithms.representatives import Representatives
from adv_detect.algorithms.views import Views
from adv_detect.images import ImageSet, load_images
from adv_detect.jobs.detectors import restore
from adv_detect.networks.frozen import working_form
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import ImageChangeParams, RuntimeParams
from adv_detect.sharding import ShardContent, ShardStore

SCORES = "scores"


@dataclass(frozen=True)
class PairImageWork:
    """Scores images of a set with several detectors, in one pass of the networks.

    Attributes:
        images: The set.
        network: The network under attack.
        representatives: Its class representatives.
        detectors: Where the detectors are.
        keys: Which of them.
        runtime: Batch size, device.
        twin: The second network; None where none of them reads it.
        views: The views that they read.
    """

    images: ImageSet
    network: TargetNetwork
    representatives: Representatives
    detectors: ShardStore
    keys: tuple[str, ...]
    runtime: RuntimeParams
    twin: TargetNetwork | None = None
    views: dict[str, ImageChangeParams] = field(default_factory=dict)

    @torch.no_grad()
    def __call__(self, indices: tuple[int, ...]) -> ShardContent:
        """Make one shard: ``scores`` ``(n, K)``, a column per detector, and ``source_index`` ``(n,)``."""
        device, spec = resolve_device(self.runtime.device), self.network.spec
        network = working_form(self.network.freeze(), device)
        twin = None if self.twin is None else working_form(self.twin.freeze(), device)
        views = Views.build(self.views, spec.bounds)
        scoring = [restore(self.detectors, key, self.representatives).detector.to(device) for key in self.keys]
        parts = []
        for start in range(0, len(indices), self.runtime.batch_size):
            batch = load_images(self.images, indices[start : start + self.runtime.batch_size], spec.bounds)
            seen = network_activations(network, batch.to(device), spec.layers, views=views, twin=twin)
            parts.append(torch.stack([one(seen).float().cpu() for one in scoring], dim=1))
        return ShardContent(
            {SCORES: torch.cat(parts), "source_index": torch.tensor(indices)}, {"detectors": list(self.keys)}
        )
