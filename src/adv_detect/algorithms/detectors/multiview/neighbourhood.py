"""Neighbours of an image among clean images, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.neighbours import nearest
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import DataError

SHOWN = 3
"""Labels whose shares are given: the three of the largest logits."""
FURTHER = 2
"""Distances beside the shares: to the first and to the k-th neighbour."""
SHARPNESS = 4.0
"""Weight of a neighbour: exp(-SHARPNESS * distance / typical distance)."""
LEAST_SCALE = 1e-12


class Neighbourhood(nn.Module):
    """Labels of the nearest clean images, and how far these lie, in whitened features.

    The label of a clean image is the class that the network gives it. A neighbour counts the more the nearer it is, so
    that shares change smoothly with the features and gradients can be followed through them; which images are the
    neighbours is without gradient. Source of the idea: Papernot and McDaniel, "Deep k-Nearest Neighbors", 2018 (arXiv
    1803.04765), who count labels over all layers.

    Attributes:
        layers: Names of the layers.
        k: Neighbours that count.
    """

    count: Tensor
    labels: Tensor
    scale: Tensor

    def __init__(self, representatives: Representatives, k: int, references: int) -> None:
        """Make room for the references.

        Args:
            representatives: For layers, widths, and the whitening.
            k: Neighbours that count.
            references: Most clean images that are kept.
        """
        super().__init__()
        self.layers, self.k, self.capacity = representatives.layers, k, references
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("labels", torch.zeros(references, dtype=torch.int64))
        self.register_buffer("scale", torch.ones(len(self.layers)))
        for layer, whitening in enumerate(representatives.whitening):
            self.register_buffer(f"whitening_{layer}", whitening.detach().clone(), persistent=False)
            self.register_buffer(f"points_{layer}", torch.zeros(references, len(whitening)))
        self._sources: Tensor | None = None

    @property
    def width(self) -> int:
        """Numbers per layer."""
        return SHOWN + FURTHER

    def fit(self, clean: Activations, *, seed: int) -> None:
        """Keep clean images as references.

        Args:
            clean: Natural images, more than k.
            seed: Of the draw where there are more than the references have room for.

        Raises:
            DataError: There are too few.
        """
        if len(clean) <= self.k:
            raise DataError(
                f"neighbours: expected more than k = {self.k} clean images to learn from, got {len(clean)}; lower "
                "neighbours, or use more images"
            )
        draw = torch.randperm(len(clean), generator=torch.Generator().manual_seed(seed))[: self.capacity]
        kept = clean.select(draw.sort().values)
        self.count.fill_(len(kept))
        self.labels[: len(kept)] = kept.logits.argmax(dim=1)
        self._sources = kept.sources if kept.sources is not None else -torch.arange(1, len(kept) + 1)
        for layer, features in enumerate(self._features(kept)):
            self._points(layer)[:] = features
            alone, _ = self._measure(layer, features, self._sources)
            self.scale[layer] = alone[:, -1].median().clamp_min(LEAST_SCALE)

    def forward(self, activations: Activations, ranking: Tensor, *, others: bool = False) -> Tensor:
        """Describe images by their neighbours.

        Args:
            activations: Of N images.
            ranking: Classes by falling logits, ``(N, C)``.
            others: Whether references of the same source image are passed over: in training they are, since no image
                to be judged is among its own references.

        Returns:
            Shape ``(N, L, 5)``: weighted shares of the three first labels among the k neighbours, and the distances to
            the first and to the k-th, in units of the typical k-th distance of clean images.
        """
        sources = activations.sources if others else None
        wanted = ranking[:, :SHOWN]
        return torch.stack(
            [
                self._describe(layer, features, wanted, sources)
                for layer, features in enumerate(self._features(activations))
            ],
            dim=1,
        )

    def _describe(self, layer: int, features: Tensor, wanted: Tensor, sources: Tensor | None) -> Tensor:
        distances, indices = self._measure(layer, features, sources)
        relative = distances / self.scale[layer]
        weights = torch.softmax(-SHARPNESS * relative, dim=1)
        labels = self.labels[indices]
        shares = [(weights * (labels == one[:, None])).sum(dim=1) for one in wanted.unbind(dim=1)]
        shares += [torch.zeros_like(shares[0])] * (SHOWN - len(shares))
        return torch.stack([*shares, relative[:, 0], relative[:, -1]], dim=1)

    def _measure(self, layer: int, features: Tensor, sources: Tensor | None) -> tuple[Tensor, Tensor]:
        """Distances to the k nearest references, with gradient, and their numbers."""
        points = self._points(layer)
        if sources is None or self._sources is None:
            return nearest(features, points, min(self.k, len(points)))
        distances, indices = nearest(features, points, min(self.k + 1, len(points)))
        own = self._sources.to(indices.device)[indices] == sources[:, None]
        kept = own.int().argsort(dim=1, stable=True)[:, : self.k]
        return distances.gather(1, kept), indices.gather(1, kept)

    def _points(self, layer: int) -> Tensor:
        return self.get_buffer(f"points_{layer}")[: int(self.count)]

    def _features(self, activations: Activations) -> list[Tensor]:
        found = (activations.features[name] for name in self.layers)
        return [part.to(torch.float32) @ self.get_buffer(f"whitening_{layer}") for layer, part in enumerate(found)]
