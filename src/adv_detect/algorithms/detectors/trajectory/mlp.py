"""A multilayer perceptron over the flattened trajectory."""

from __future__ import annotations

from torch import Tensor, nn

from adv_detect.algorithms.detectors.trajectory.readout import TrajectoryReadout
from adv_detect.errors import DataError

DROPOUT = 0.5
"""Share of hidden units dropped in training, as in Massoli et al. (arXiv 1912.02918)."""


class MLPReadout(TrajectoryReadout):
    """Flattened L * K distances -> hidden -> ReLU -> dropout -> one logit.

    Source: Massoli et al., Computer Vision and Image Understanding 2021 (arXiv 1912.02918), section 4; hidden
    width 100 there. The standardisation of the input is an addition.

    Attributes:
        hidden: Number of hidden units.
        fc: The hidden layer.
        classifier: From the hidden units to one logit.
    """

    kind = "mlp"

    def __init__(self, layers: int | None, classes: int | None, *, hidden: int, inputs: int | None = None) -> None:
        super().__init__(layers, classes)
        self.hidden = hidden
        self.inputs = inputs if inputs is not None else (layers or 1) * (classes or 1)
        self.fc = nn.Sequential(nn.Linear(self.inputs, hidden), nn.ReLU(), nn.Dropout(DROPOUT))
        self.classifier = nn.Linear(hidden, 1)

    def logits(self, standardised: Tensor) -> Tensor:
        """Map standardised trajectories of shape (N, L, K) to logits of shape (N,)."""
        flat = standardised.flatten(1)
        if flat.shape[1] != self.inputs:
            raise DataError(
                f"expected trajectories with L * C = {self.inputs} for this mlp detector, "
                f"got shape {tuple(standardised.shape)}"
            )
        scores: Tensor = self.classifier(self.fc(flat))
        return scores.squeeze(1)
