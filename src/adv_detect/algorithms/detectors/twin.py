"""The second opinion: how little a robust twin believes in the class that the network names."""

from __future__ import annotations

from torch import Tensor

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector, LearnsFrom, Reads
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import DataError


class TwinDetector(Detector):
    """Minus the log-probability that the twin gives to the network's class."""

    learns_from = LearnsFrom.NOTHING
    reads = Reads(layers=False, twin=True)
    differentiable = True

    def __init__(self, representatives: Representatives | None = None) -> None:
        """Take the representatives as every detector does; they are not read."""
        super().__init__()

    def forward(self, activations: Activations) -> Tensor:
        """Score images: minus the log-probability, ``(N,)``."""
        twin = twin_of(activations)
        named = activations.logits.argmax(dim=1, keepdim=True)
        return -twin.gather(1, named).squeeze(1)

    def score_as(self, activations: Activations, targets: Tensor, *, scores: Tensor) -> Tensor:
        """Score images by the log-probability of the targets, which saturates no more than the logits it is made of."""
        return -twin_of(activations).gather(1, targets[:, None]).squeeze(1)

    def describe(self, activations: Activations) -> Tensor:
        """Give the twin's log-probabilities ``(N, C)``."""
        return twin_of(activations)


def twin_of(activations: Activations) -> Tensor:
    """Return what the twin says of images.

    Args:
        activations: Of N images.

    Returns:
        Log-probabilities ``(N, C)``.

    Raises:
        DataError: There is none, or it is of another number of classes than the network.
    """
    twin, logits = activations.twin, activations.logits
    if twin is None:
        raise DataError("activations: expected what the twin says, got none; run the pipeline twin_training")
    if twin.shape != logits.shape:
        raise DataError(
            f"activations: expected a twin of the {logits.shape[1]} classes of the network, got {twin.shape[1]}"
        )
    return twin
