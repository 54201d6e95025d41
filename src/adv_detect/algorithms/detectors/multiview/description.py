"""Description of an image by ranked distances, logit gaps, neighbours and views."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.multiview.arguments import DescriptionArguments
from adv_detect.algorithms.detectors.multiview.neighbourhood import SHOWN, Neighbourhood
from adv_detect.algorithms.distances import ClassDistances
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError, DataError

OF_A_VIEW = 2 * SHOWN
"""Numbers per view: changes of three logits, and of their softmax."""


class Description(nn.Module):
    """Numbers that do not depend on how many classes there are, first those of each layer, then the others.

    Classes are ranked by the logits of the image, best first; the ranking is without gradient. Per layer: whitened
    distances to the centroids of the first ``top_k`` classes, and what :class:`Neighbourhood` says. Beside them: how
    far the other logits lie below the largest, and by how much each view changes the three largest logits and their
    softmax.

    Attributes:
        arguments: Parts that are read.
        layers: Number of layers read; 0 where none is.
        per_layer: Numbers per layer.
        beside: Numbers beside the layers, without those of views.
    """

    def __init__(self, representatives: Representatives, arguments: DescriptionArguments) -> None:
        """Prepare what is read.

        Args:
            representatives: Class representatives of the network under attack.
            arguments: Parts that are read; of fewer classes than ``top_k`` by default all are.

        Raises:
            ConfigurationError: More classes are asked for than there are.
        """
        super().__init__()
        self.arguments, self.names = arguments, representatives.layers
        classes = len(representatives.class_names)
        if "top_k" in arguments.model_fields_set and arguments.top_k > classes:
            raise ConfigurationError(
                f"top_k: expected at most the {classes} classes of the data, got {arguments.top_k}"
            )
        self.top = min(arguments.top_k, classes)
        self._shared = ("centroid", "mahalanobis", id(representatives))
        self.distances = (
            ClassDistances(representatives.centroids, "mahalanobis", whitening=representatives.whitening)
            if arguments.distances
            else None
        )
        self.neighbourhood = (
            Neighbourhood(representatives, arguments.neighbours, arguments.references) if arguments.neighbours else None
        )
        self.layers = len(self.names) if arguments.reads_layers else 0
        self.per_layer = (self.top if self.distances else 0) + (self.neighbourhood.width if self.neighbourhood else 0)
        self.beside = self.top - 1 if arguments.logit_gaps else 0

    @property
    def cheap(self) -> int:
        """Numbers that come before those of views."""
        return self.layers * self.per_layer + self.beside

    @property
    def width(self) -> int:
        """Numbers of the whole description."""
        return self.cheap + OF_A_VIEW * len(self.arguments.views)

    def fit(self, clean: Activations, *, seed: int) -> None:
        """Keep clean images to find neighbours among."""
        if self.neighbourhood is not None:
            self.neighbourhood.fit(clean, seed=seed)

    def forward(self, activations: Activations, *, others: bool = False, views: bool = True) -> Tensor:
        """Describe images.

        Args:
            activations: Of N images.
            others: Whether clean images of the same source are passed over among neighbours.
            views: Whether the views are read.

        Returns:
            Shape ``(N, width)``, or ``(N, cheap)`` without views; float32.
        """
        self._check(activations, views)
        logits = activations.logits
        ranking = logits.detach().argsort(dim=1, descending=True, stable=True)
        parts = [self._of_layers(activations, ranking, others)] if self.layers else []
        if self.arguments.logit_gaps:
            parts.append(logit_gaps(logits, ranking[:, : self.top]))
        if views:
            parts += [view_changes(logits, activations.views[name], ranking) for name in self.arguments.views]
        return torch.cat([part.to(torch.float32) for part in parts], dim=1)

    def _of_layers(self, activations: Activations, ranking: Tensor, others: bool) -> Tensor:
        parts = []
        if self.distances is not None:
            features = [activations.features[name] for name in self.names]
            distances, measure = self._shared, self.distances
            found = activations.derived(distances, lambda: measure(features))
            chosen = ranking[:, None, : self.top].expand(-1, found.shape[1], -1)
            parts.append(found.gather(2, chosen).to(torch.float32))
        if self.neighbourhood is not None:
            parts.append(self.neighbourhood(activations, ranking, others=others))
        return torch.cat(parts, dim=2).flatten(1)

    def _check(self, activations: Activations, views: bool) -> None:
        read = (*self.names,) if self.layers else ()
        missing = [name for name in read if name not in activations.features]
        missing += [name for name in self.arguments.views if views and name not in activations.views]
        if missing:
            raise DataError(
                f"activations: expected the layers and views that the detector reads, missing are {missing}"
            )


def logit_gaps(logits: Tensor, ranking: Tensor) -> Tensor:
    """Measure how far the logits of further classes lie below the largest.

    Args:
        logits: Shape ``(N, C)``.
        ranking: First K classes by falling logits, ``(N, K)``.

    Returns:
        Shape ``(N, K - 1)``, not negative, rising along a row.
    """
    ranked = logits.gather(1, ranking)
    return ranked[:, :1] - ranked[:, 1:]


def view_changes(logits: Tensor, seen: Tensor, ranking: Tensor) -> Tensor:
    """Measure what a view changes in the classes that the network thought likeliest.

    Args:
        logits: Of the images, ``(N, C)``.
        seen: Of their view, ``(N, C)``.
        ranking: Classes by falling logits of the images, ``(N, C)``.

    Returns:
        Shape ``(N, 6)``: view minus image, of the three largest logits and of their softmax; 0 for classes that there
        are not.
    """
    chosen = ranking[:, :SHOWN]
    moved = [(after - before).gather(1, chosen) for before, after in ((logits, seen), _softmax(logits, seen))]
    return torch.cat([nn.functional.pad(one, (0, SHOWN - one.shape[1])) for one in moved], dim=1)


def _softmax(logits: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    return logits.softmax(dim=1), seen.softmax(dim=1)
