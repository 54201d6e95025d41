"""The models that an attacker sees: network and detector joined, in the forms that the attacks need."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adv_detect.algorithms.detectors.end_to_end import DetectionModel

STRICT, USUAL = 0.01, 0.05
REFERENCE_THRESHOLD = 0.0
"""The reference passes a detector probability below 0.5: a logit below 0."""


class FeatureModel(nn.Module):
    """A joint model described by the features of its last layer, for attacks that match features.

    Attributes:
        model: Images to class logits, scores and activations.
        medoids: Medoids of the last layer, ``(C, D)``.
        nearest: Whether the class is named by the nearest medoid instead of the network's own logits.
    """

    medoids: Tensor

    def __init__(self, model: DetectionModel, medoids: Tensor, *, nearest: bool) -> None:
        """Wrap a joint model; nothing is copied."""
        super().__init__()
        self.model = model
        self.nearest = nearest
        self.register_buffer("medoids", medoids)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Give class logits ``(N, C)`` and detector logits ``(N,)``."""
        logits, scores, _ = self.describe(images)
        return logits, scores

    def describe(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give class logits ``(N, C)``, detector logits ``(N,)`` and features of the last layer ``(N, D)``.

        With ``nearest`` the class logits are minus the distances to the medoids.
        """
        return self.evade(images, None)[:3]

    def evade(self, images: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give what :meth:`describe` gives, and the detector's parts ``(N, M)`` if the network named other classes.

        Args:
            images: Shape ``(N, channels, H, W)``.
            targets: The other classes, int64, ``(N,)``; None for those that the network names.
        """
        activations = self.model.activations(images)
        features = activations.features[self.model.layers[-1]]
        scores = self.model.detector(activations)
        named = activations.logits.detach().argmax(dim=1) if targets is None else targets
        parts = self.model.detector.score_parts(activations, named, scores=scores)
        logits = activations.logits
        if self.nearest:
            logits = -torch.cdist(features, self.medoids, compute_mode="donot_use_mm_for_euclid_dist")
        return logits, scores, features, parts
