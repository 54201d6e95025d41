"""Neural-network invariant checking: one-class models of layers and of pairs of layers."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector, FitHistory, LearnsFrom
from adv_detect.algorithms.detectors.published.one_class import OneClassSVM
from adv_detect.algorithms.detectors.published.references import balanced_rows
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError, DataError

NU = 0.05
"""Share of clean images that each one-class model may leave outside; the paper tunes it for each layer."""
COMPONENTS = 64
"""Principal components of a layer; the paper reduces wide layers likewise."""
IMAGES = 2000
"""Clean images that the one-class models learn from: they compare all pairs."""
FEWEST = 10


class NICDetector(Detector):
    """Value invariants of each layer and provenance invariants of consecutive layers, joined by a one-class model.

    Source: Ma et al., "NIC: detecting adversarial samples with neural network invariant checking", NDSS 2019, section
    IV. A value invariant is a one-class model of a layer's features. A derived model reads the class from a layer; the
    provenance invariant of two consecutive layers is a one-class model of both readings, the last one being the
    network's own softmax. A last one-class model joins all of them; its score is that of the image. Departures:
    features are pooled, as for every detector here; derived models are logistic regressions, which are what the
    paper's become (a frozen part of the network and a new softmax layer); scores are logarithms of the decision
    functions (see :class:`OneClassSVM`).

    Attributes:
        layers: Names of the layers.
        images: Clean images learned from at most.
        values: One model per layer.
        derived: Per layer, features to the logits of classes.
        provenances: One model per pair of consecutive readings.
        joint: The last model.
    """

    learns_from = LearnsFrom.CLEAN

    def __init__(
        self, representatives: Representatives, nu: float = NU, components: int = COMPONENTS, images: int = IMAGES
    ) -> None:
        """Make models that have learned nothing yet.

        Args:
            representatives: Class representatives of the network under attack.
            nu: Share of clean images that each model may leave outside, above 0, at most 1.
            components: Principal components of a layer or pair.
            images: Clean images to learn from, balanced over the classes.

        Raises:
            ConfigurationError: An argument is out of range, or there are fewer than two layers.
        """
        super().__init__()
        self.layers, classes = representatives.layers, len(representatives.class_names)
        if len(self.layers) < 2:
            raise ConfigurationError(
                f"nic: expected a network with at least 2 layers read, to compare pairs of them, got "
                f"{list(self.layers)}; name more in network.layers"
            )
        if not 0 < nu <= 1 or components < 1 or images < FEWEST:
            raise ConfigurationError(
                f"expected nu above 0 and at most 1, components from 1 and images from {FEWEST}, got {nu}, "
                f"{components} and {images}"
            )
        self.images, self.clean_needed = images, FEWEST
        widths = [points.shape[1] for points in representatives.centroids]
        self.values = nn.ModuleList(OneClassSVM(width, nu=nu, components=components) for width in widths)
        self.derived = nn.ModuleList(nn.Linear(width, classes) for width in widths[:-1])
        self.provenances = nn.ModuleList(OneClassSVM(2 * classes, nu=nu, components=components) for _ in self.derived)
        self.joint = OneClassSVM(len(self.values) + len(self.provenances), nu=nu, components=components)

    def forward(self, activations: Activations) -> Tensor:
        """Score images: above 0 outside, ``(N,)``."""
        scores: Tensor = self.joint(self.invariants(activations))
        return scores.to(activations.logits.dtype)

    def invariants(self, activations: Activations) -> Tensor:
        """Give the scores of the value and the provenance invariants, ``(N, 2 L - 1)``."""
        values = [model(part) for model, part in zip(self.values, activations.of_layers(self.layers), strict=True)]
        pairs = zip(self.provenances, self._pairs(activations), strict=True)
        return torch.stack([*values, *(model(pair) for model, pair in pairs)], dim=1)

    def fit(self, clean: Activations, attacked: Activations | None, *, seed: int) -> FitHistory:
        """Fit derived models, then the invariants, then the model that joins them."""
        if len(clean) < FEWEST:
            raise DataError(f"nic: expected at least {FEWEST} clean images, got {len(clean)}; use more images")
        predicted = clean.logits.argmax(dim=1)
        chosen = clean.select(balanced_rows(predicted, self.images, seed=seed)).detach()
        features = chosen.of_layers(self.layers)
        for model, part in zip(self.derived, features[:-1], strict=True):
            assert isinstance(model, nn.Linear)
            _fit_derived(model, part, chosen.logits.argmax(dim=1))
        with torch.no_grad():
            pairs = self._pairs(chosen)
            for one, part in zip((*self.values, *self.provenances), (*features, *pairs), strict=True):
                assert isinstance(one, OneClassSVM)
                one.fit(part)
            self.joint.fit(self.invariants(chosen))
        return []

    def _pairs(self, activations: Activations) -> list[Tensor]:
        """Give both class readings of each pair of consecutive layers, ``(N, 2 C)``."""
        parts = zip(self.derived, activations.of_layers(self.layers[:-1]), strict=True)
        read = [model(part.float()).softmax(dim=1) for model, part in parts]
        read.append(activations.logits.softmax(dim=1))
        return [torch.cat(pair, dim=1) for pair in pairwise(read)]


def _fit_derived(model: nn.Linear, features: Tensor, classes: Tensor) -> None:
    """Fit a class reading to features; the scale of the features is folded into the weights."""
    from sklearn.linear_model import LogisticRegression

    mean, std = features.double().mean(dim=0), features.double().std(dim=0).clamp_min(1e-6)
    held = torch.unique(classes)
    if len(held) < 2:
        raise DataError(f"nic: expected clean images of at least 2 classes, got {held.tolist()}; use more images")
    solved = LogisticRegression(max_iter=300).fit(((features - mean) / std).numpy(), classes.numpy())
    weight, bias = torch.from_numpy(solved.coef_), torch.from_numpy(solved.intercept_)
    if len(held) == 2:
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    with torch.no_grad():
        model.weight.zero_()
        model.bias.fill_(-1e4)  # classes without an image are never read
        model.weight[held] = (weight / std).float()
        model.bias[held] = (bias - (weight / std) @ mean).float()
