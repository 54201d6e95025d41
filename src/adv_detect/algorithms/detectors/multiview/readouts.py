"""Read-outs of descriptions: a perceptron, and an LSTM over layers that is joined by the rest at its end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from adv_detect.algorithms.detectors.multiview.description import Description
from adv_detect.algorithms.detectors.trajectory.readout import TrajectoryReadout

DROPOUT = 0.3
"""Share of hidden units dropped in training; not tuned."""


class DescriptionReadout(TrajectoryReadout):
    """Maps a description ``(N, 1, F)``, standardised, to one logit.

    Standardised values pass through asinh: a logit gap ten times as large as any in training stays a number that the
    read-out has seen the like of, and its gradient does not vanish.
    """

    def __init__(self, layers: int, per_layer: int, beside: int) -> None:
        """Note the form of a description.

        Args:
            layers: Number of layers.
            per_layer: Numbers per layer.
            beside: Numbers beside them.
        """
        super().__init__(1, layers * per_layer + beside)
        self.form = (layers, per_layer)

    def parts(self, standardised: Tensor) -> tuple[Tensor, Tensor]:
        """Cut a description into layers ``(N, L, P)`` and the rest ``(N, R)``."""
        values = standardised.squeeze(1).asinh()
        cut = self.form[0] * self.form[1]
        return values[:, :cut].view(len(values), *self.form) if cut else values[:, :0], values[:, cut:]


class JoinedMLP(DescriptionReadout):
    """Everything at once -> hidden -> hidden -> one logit."""

    kind = "multiview mlp"

    def __init__(self, layers: int, per_layer: int, beside: int, *, hidden: int) -> None:
        super().__init__(layers, per_layer, beside)
        self.head = _head(layers * per_layer + beside, hidden)

    def logits(self, standardised: Tensor) -> Tensor:
        """Map standardised descriptions ``(N, 1, F)`` to logits ``(N,)``."""
        of_layers, beside = self.parts(standardised)
        scores: Tensor = self.head(torch.cat([of_layers.flatten(1), beside], dim=1))
        return scores.squeeze(1)


class JoinedLSTM(DescriptionReadout):
    """An LSTM over the layers; its last state and the rest -> hidden -> hidden -> one logit."""

    kind = "multiview lstm"

    def __init__(self, layers: int, per_layer: int, beside: int, *, hidden: int) -> None:
        super().__init__(layers, per_layer, beside)
        self.lstm = nn.LSTM(per_layer, hidden, batch_first=True)
        self.head = _head(hidden + beside, hidden)

    def logits(self, standardised: Tensor) -> Tensor:
        """Map standardised descriptions ``(N, 1, F)`` to logits ``(N,)``."""
        of_layers, beside = self.parts(standardised)
        output: Tensor = self.lstm(of_layers)[0]
        scores: Tensor = self.head(torch.cat([output[:, -1], beside], dim=1))
        return scores.squeeze(1)


READOUTS: dict[str, Callable[..., DescriptionReadout]] = {"mlp": JoinedMLP, "lstm": JoinedLSTM}


def build_joined(kind: str, description: Description, *, hidden: int, views: bool, seed: int) -> DescriptionReadout:
    """Make a read-out with fresh weights; the global random state stays as it is.

    Args:
        kind: ``mlp`` or ``lstm``.
        description: What it reads.
        hidden: Width.
        views: Whether it reads the views.
        seed: Of the weights.

    Returns:
        The read-out, in training mode.
    """
    layers, per_layer = description.layers, description.per_layer
    beside = (description.width if views else description.cheap) - layers * per_layer
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return READOUTS[kind](layers, per_layer, beside, hidden=hidden)


def _head(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(hidden, 1),
    )
