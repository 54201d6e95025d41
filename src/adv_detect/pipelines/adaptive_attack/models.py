"""The models that an attacker sees: network and detector joined, in the forms that the attacks need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adv_detect.algorithms.detectors import TrajectoryDetector
from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import DetectorParams
from adv_detect.serving.bundle import restore_detector

STRICT, USUAL = 0.01, 0.05
REFERENCE_THRESHOLD = 0.0
"""The reference passes a detector probability below 0.5: a logit below 0."""


@dataclass(frozen=True)
class KnownDetector:
    """A trained detector, as an attacker who knows everything has it.

    Attributes:
        key: Its name in all tables.
        detector: The detector, frozen, in evaluation mode.
        params: What it reads and how.
        about: Facts that were stored with it.
    """

    key: str
    detector: TrajectoryDetector
    params: DetectorParams
    about: Mapping[str, Any]

    @classmethod
    def restore(cls, key: str, about: Mapping[str, Any], state: Mapping[str, Tensor]) -> KnownDetector:
        """Build it from what is stored."""
        return cls(key, restore_detector(about, state), DetectorParams.model_validate(about["params"]), about)

    def threshold(self, fpr: float = USUAL) -> float:
        """Return the threshold fixed on clean validation images.

        Args:
            fpr: The false-positive rate.

        Returns:
            Logit above which an image counts as adversarial.

        Raises:
            ConfigurationError: No threshold was fixed at that rate.
        """
        found = [value for rate, value in self.about["thresholds"].items() if abs(float(rate) - fpr) < 1e-9]
        if not found:
            raise ConfigurationError(
                f"evaluation.fprs: adaptive_attack needs thresholds at {STRICT:g} and {USUAL:g}; detector {self.key!r} "
                f"has them at {sorted(map(float, self.about['thresholds']))}; add the rate and run the pipeline "
                "detector_training"
            )
        return float(found[0])

    def join(self, network: TargetNetwork, representatives: Representatives, device: torch.device) -> DetectionModel:
        """Join it with network and representatives on a device, in evaluation mode."""
        model = DetectionModel(network, representatives, self.detector, self.params)
        model.to(device).eval().requires_grad_(False)
        return model


class FeatureModel(nn.Module):
    """A joint model described by the features of its last layer, for attacks that match features.

    Attributes:
        model: Images to class logits, detector logits and trajectories.
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
        logits, scores, features = self.model.embed(images)
        if self.nearest:
            logits = -torch.cdist(features, self.medoids, compute_mode="donot_use_mm_for_euclid_dist")
        return logits, scores, features
