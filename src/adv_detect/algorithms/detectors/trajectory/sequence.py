"""Recurrent detectors: an LSTM walks through the layers of a trajectory."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from adv_detect.algorithms.detectors.trajectory.readout import TrajectoryReadout

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
"""Tensors of one direction of an LSTM, in the order in which `torch.lstm` takes them."""


class SequenceReadout(TrajectoryReadout):
    """One LSTM layer over the L layers, its output at the last layer, and a linear read-out.

    Source: Massoli et al., Computer Vision and Image Understanding 2021 (arXiv 1912.02918), section 4; hidden
    width 100 there. The standardisation of the input is an addition.

    Attributes:
        hidden: Width of the LSTM's state, per direction.
        lstm: Batch first; input (N, L, K).
        classifier: From the state after the last layer to one logit.
    """

    kind = "lstm"
    bidirectional = False

    def __init__(self, layers: int | None, classes: int, *, hidden: int) -> None:
        super().__init__(layers, classes)
        self.hidden = hidden
        self.lstm = nn.LSTM(classes, hidden, batch_first=True, bidirectional=self.bidirectional)
        self.classifier = nn.Linear(hidden * (2 if self.bidirectional else 1), 1)

    def logits(self, standardised: Tensor) -> Tensor:
        """Map standardised trajectories of shape (N, L, K) to logits of shape (N,)."""
        scores: Tensor = self.classifier(self.last_output(standardised))
        return scores.squeeze(1)

    def last_output(self, standardised: Tensor) -> Tensor:
        """Give the LSTM's output at the last layer.

        Args:
            standardised: Shape (N, L, K).

        Returns:
            Shape (N, hidden).
        """
        output: Tensor = self.lstm(standardised)[0]
        return output[:, -1]


class BidirectionalReadout(SequenceReadout):
    """The same with an LSTM that runs in both directions, read at the last layer.

    There the backward direction has seen one layer only: it starts at the last one.
    """

    kind = "bilstm"
    bidirectional = True

    def last_output(self, standardised: Tensor) -> Tensor:
        """Give both directions' outputs at the last layer.

        On the CPU the backward direction is one step instead of L: the outputs at earlier layers are not read.

        Args:
            standardised: Shape (N, L, K).

        Returns:
            Shape (N, 2 * hidden): forward, then backward.
        """
        if standardised.device.type != "cpu":  # cuDNN wants all weights of both directions in one block
            return super().last_output(standardised)
        start = standardised.new_zeros(1, len(standardised), self.hidden)
        forward = torch.lstm(
            standardised, (start, start), self._direction(""), True, 1, 0.0, self.training, False, True
        )[1][0]
        return torch.cat([forward, self._first_backward_step(standardised[:, -1])], dim=1)

    def _direction(self, suffix: str) -> list[Tensor]:
        return [self.lstm.get_parameter(f"{name}_l0{suffix}") for name in WEIGHTS]

    def _first_backward_step(self, last: Tensor) -> Tensor:
        """Take the backward direction's first step, from a zero state, on the last layer's row (N, K)."""
        weight, _, bias, state_bias = self._direction("_reverse")
        gates = functional.linear(last, weight, bias + state_bias)
        write, _, candidate, read = gates.chunk(4, dim=1)
        return read.sigmoid() * (write.sigmoid() * candidate.tanh()).tanh()
