"""Controls: detectors that every other one must beat."""

from __future__ import annotations

from torch import Tensor

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector, LearnsFrom, Reads
from adv_detect.algorithms.margins import margin
from adv_detect.algorithms.representatives import Representatives


class MarginDetector(Detector):
    """Minus the gap of the network's two largest logits: fires near the decision boundary and nowhere else."""

    learns_from = LearnsFrom.NOTHING
    reads = Reads(layers=False)
    differentiable = True

    def __init__(self, representatives: Representatives | None = None) -> None:
        """Take the representatives as every detector does; they are not read."""
        super().__init__()

    def forward(self, activations: Activations) -> Tensor:
        """Score images: minus the margin, ``(N,)``."""
        return -margin(activations.logits)
