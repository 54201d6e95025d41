"""Local intrinsic dimensionality of all layers, joined by logistic regression."""

from __future__ import annotations

import torch
from torch import Tensor

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector, FitHistory, LearnsFrom
from adv_detect.algorithms.detectors.published.logistic import LogisticReadout
from adv_detect.algorithms.detectors.published.references import balanced_rows
from adv_detect.algorithms.neighbours import nearest
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError, DataError

MINIBATCH = 100
"""Published: natural images among which neighbours are sought."""
NEIGHBOURS = 20
"""Of the published order; the paper tunes it for each data set and attack."""
LEFT_TO_LEARN = 10
"""Natural images that must remain to learn from beside the minibatch."""


class LIDDetector(Detector):
    """Maximum-likelihood estimate of the local intrinsic dimensionality at every layer, and logistic regression.

    Source: Ma et al., "Characterizing adversarial subspaces using local intrinsic dimensionality", ICLR 2018
    (arXiv 1801.02613), equation 4 and algorithm 1. Departures: one minibatch of natural images, balanced over the
    classes, is kept and serves all images, where the paper draws one for each batch; those images are not learned from,
    and noisy images are not among the negatives.

    Attributes:
        layers: Names of the layers.
        k: Number of neighbours.
        minibatch: Number of images kept.
        readout: Log-odds of the L estimates.
    """

    learns_from = LearnsFrom.ATTACKS

    def __init__(self, representatives: Representatives, k: int = NEIGHBOURS, minibatch: int = MINIBATCH) -> None:
        """Make room for the minibatch.

        Args:
            representatives: Class representatives of the network under attack.
            k: Number of neighbours.
            minibatch: Number of natural images that they are sought among.

        Raises:
            ConfigurationError: k is not between 2 and the size of the minibatch less one.
        """
        super().__init__()
        if not 2 <= k < minibatch:
            raise ConfigurationError(f"k: expected 2 to {minibatch - 1}, one below minibatch, got {k}")
        self.layers, self.k, self.minibatch = representatives.layers, k, minibatch
        self.clean_needed = minibatch + LEFT_TO_LEARN
        for number, points in enumerate(representatives.centroids):
            self.register_buffer(f"references_{number}", torch.zeros(minibatch, points.shape[1]))
        self.readout = LogisticReadout(len(self.layers))

    def forward(self, activations: Activations) -> Tensor:
        """Score images: log-odds ``(N,)``."""
        scores: Tensor = self.readout(self.figures(activations))
        return scores

    def figures(self, activations: Activations) -> Tensor:
        """Estimate the dimensionality at each layer, ``(N, L)``."""
        parts = enumerate(activations.of_layers(self.layers))
        return torch.stack(
            [intrinsic_dimensionality(part, self.get_buffer(f"references_{number}"), self.k) for number, part in parts],
            dim=1,
        )

    def fit(self, clean: Activations, attacked: Activations | None, *, seed: int) -> FitHistory:
        """Keep a minibatch of natural images and learn the weights of the layers from the others."""
        if attacked is None:
            raise DataError("a lid detector learns from attacks, got none; give attacked images")
        if len(clean) < self.clean_needed:
            raise DataError(
                f"lid: expected at least {self.clean_needed} natural images, {LEFT_TO_LEARN} more than minibatch, got "
                f"{len(clean)}; use more images or a smaller minibatch"
            )
        kept = balanced_rows(clean.logits.argmax(dim=1), self.minibatch, seed=seed)
        for number, part in enumerate(clean.select(kept).of_layers(self.layers)):
            setattr(self, f"references_{number}", part.detach().clone())
        others = torch.ones(len(clean), dtype=torch.bool)
        others[kept] = False
        self.readout.fit(self.figures(clean.select(others)), self.figures(attacked), seed=seed)
        return []


def intrinsic_dimensionality(features: Tensor, references: Tensor, k: int) -> Tensor:
    """Estimate the local intrinsic dimensionality by maximum likelihood.

    Args:
        features: Shape ``(N, D)``.
        references: Shape ``(M, D)``; one that equals an image is passed over for it.
        k: Number of neighbours, below M.

    Returns:
        ``-1 / mean(log(r_i / r_k))`` over the distances ``r_1 .. r_k``, shape ``(N,)``.
    """
    far, _ = nearest(features, references, k + 1)
    itself = far[:, :1].detach() == 0
    far = torch.where(itself, far[:, 1:], far[:, :-1]).double()
    smallest = torch.finfo(features.dtype).tiny
    ratios = far.clamp_min(smallest) / far[:, -1:].clamp_min(smallest)
    flatness = -ratios.log().mean(dim=1)
    # where all neighbours are equally far the estimate is infinite; a sphere in float32 has none beyond this
    return (1 / flatness.clamp_min(torch.finfo(torch.float32).eps)).to(features.dtype)
