"""Distance of a description from those of clean images, learned from clean images alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adv_detect.algorithms.detectors.multiview.arguments import OneClassModel
from adv_detect.algorithms.neighbours import nearest
from adv_detect.algorithms.whitening import inverse_square_root, shrinkage_coefficient, shrunk_covariance

STD_FLOOR = 1e-3
PRIOR_IMAGES = 20
"""Images that the mean over all classes counts for in the mean of a class."""
LEAST_SQUARE = 1e-12


class OneClass(nn.Module):
    """A model of the descriptions of clean images.

    ``gaussian``: distance from the mean, whitened by the covariance after Ledoit and Wolf. ``class_gaussian``: the same
    around a mean of each predicted class, drawn towards the common one, with one covariance. ``neighbours``: distance
    to the k-th nearest clean description after that whitening. Values pass through asinh of their standardised form.

    Attributes:
        model: Which of the three.
    """

    mean: Tensor
    std: Tensor
    centres: Tensor
    whitener: Tensor
    kept: Tensor
    count: Tensor

    def __init__(self, width: int, classes: int, model: OneClassModel, *, k: int, references: int) -> None:
        """Make room for what is learned.

        Args:
            width: Numbers of a description, F.
            classes: Number of classes, C.
            model: Which model.
            k: Neighbours of ``neighbours``.
            references: Most clean descriptions that ``neighbours`` keeps.
        """
        super().__init__()
        self.model, self.k = model, k
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("centres", torch.zeros(classes if model == "class_gaussian" else 1, width))
        self.register_buffer("whitener", torch.eye(width))
        self.register_buffer("kept", torch.zeros(references if model == "neighbours" else 0, width))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def fit(self, descriptions: Tensor, predicted: Tensor, *, seed: int) -> None:
        """Learn from clean images.

        Args:
            descriptions: Shape ``(N, F)``.
            predicted: Class that the network gives each, ``(N,)``.
            seed: Of the draw of what is kept.
        """
        std, mean = torch.std_mean(descriptions, dim=0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(STD_FLOOR))
        values = self._even(descriptions)
        for number in range(len(self.centres)):
            chosen = values[predicted == number] if len(self.centres) > 1 else values
            self.centres[number] = (chosen.sum(dim=0) + PRIOR_IMAGES * values.mean(dim=0)) / (
                len(chosen) + PRIOR_IMAGES
            )
        centred = (values - self._centre(predicted)).to(torch.float64)
        shrinkage = shrinkage_coefficient(centred, "ledoit_wolf")
        covariance = shrunk_covariance(centred.T @ centred / len(centred), shrinkage)
        self.whitener.copy_(inverse_square_root(covariance).to(torch.float32))
        if self.model == "neighbours":
            draw = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))[: len(self.kept)]
            self.count.fill_(len(draw))
            self.kept[: len(draw)] = centred[draw].to(torch.float32) @ self.whitener

    def forward(self, descriptions: Tensor, predicted: Tensor) -> Tensor:
        """Score descriptions ``(N, F)`` of images of these predicted classes: distances ``(N,)``."""
        whitened = (self._even(descriptions) - self._centre(predicted)) @ self.whitener
        if self.model == "neighbours":
            kept = self.kept[: int(self.count)]
            _, indices = nearest(whitened, kept, min(self.k, len(kept)))
            whitened = whitened - kept[indices[:, -1]]
        return (whitened.square().mean(dim=1) + LEAST_SQUARE).sqrt()

    def _even(self, descriptions: Tensor) -> Tensor:
        return ((descriptions - self.mean) / self.std).asinh()

    def _centre(self, predicted: Tensor) -> Tensor:
        return self.centres[predicted] if len(self.centres) > 1 else self.centres
