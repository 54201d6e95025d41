"""Network and detector as one differentiable model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.robust_losses import log_probabilities
from adv_detect.algorithms.views import Views
from adv_detect.networks.target import TargetNetwork


class DetectionModel(nn.Module):
    """Maps images to class logits and to scores in one pass, with gradients from both to the images.

    Attributes:
        network: The network under attack.
        detector: Activations to scores ``(N,)``.
        layers: Names of the layers read.
        views: The views that the detector reads.
        twin: The second network; None where the detector does not read it.
    """

    def __init__(
        self,
        network: nn.Module,
        detector: Detector,
        layers: Sequence[str],
        *,
        views: Views | None = None,
        twin: TargetNetwork | None = None,
    ) -> None:
        """Join the parts, which are shared, not copied.

        Args:
            network: The network under attack.
            detector: A detector for it.
            layers: Names of the layers whose features are activations, in network order.
            views: The views that the detector reads; None where it reads none.
            twin: The second network, for a detector that reads it.
        """
        super().__init__()
        self.network = network
        self.detector = detector
        self.layers = tuple(layers)
        self.views = views or Views()
        self.twin = twin

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Classify images and score them.

        Args:
            images: Shape ``(N, channels, H, W)``, in the pixel range of the network.

        Returns:
            Class logits ``(N, C)``, and scores ``(N,)``: higher is more likely adversarial.
        """
        activations = self.activations(images)
        return activations.logits, self.detector(activations)

    def activations(self, images: Tensor) -> Activations:
        """Run the network, once on the images and once per view, and keep what the detector reads.

        Images whose views the detector does not need are given no view: their own logits stand there.
        """
        plain = network_activations(self.network, images, self.layers, twin=self.twin)
        needing = self.detector.needs_views(plain) if self.views.changes else None
        if needing is None:
            return replace(plain, views=self.views.logits(self.network, images))
        rows = needing.nonzero().flatten()
        seen = self.views.logits(self.network, images[rows]) if len(rows) else {}
        unread = plain.logits.detach()
        return replace(
            plain,
            views={
                name: unread.index_copy(0, rows, seen[name].to(unread.dtype)) if name in seen else unread
                for name in self.views.changes
            },
        )

    def evade(self, images: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Classify images, score them, and say what they would score if the network named other classes.

        Args:
            images: Shape ``(N, channels, H, W)``, in the pixel range of the network.
            targets: The other classes, int64, ``(N,)``; None for those that the network names.

        Returns:
            Class logits ``(N, C)``, scores ``(N,)``, and :meth:`Detector.score_parts` of the same pass, ``(N, M)``.
        """
        activations = self.activations(images)
        logits, scores = activations.logits, self.detector(activations)
        named = logits.detach().argmax(dim=1) if targets is None else targets
        return logits, scores, self.detector.score_parts(activations, named, scores=scores)

    @property
    def detector_stands_alone(self) -> bool:
        """Tell whether the detector reads the twin, and of the network no more than the class that it names."""
        reads = self.detector.reads
        return self.twin is not None and not reads.layers and not reads.views

    def parts_as(self, images: Tensor, targets: Tensor) -> Tensor:
        """Score images as if the network named other classes; it is not run where the detector stands alone.

        Args:
            images: Shape ``(N, channels, H, W)``.
            targets: The other classes, int64, ``(N,)``.

        Returns:
            Parts of the scores, ``(N, M)``.
        """
        if self.twin is None or not self.detector_stands_alone:
            return self.evade(images, targets)[2]
        said = log_probabilities(self.twin(images), self.twin.spec.head)
        supposed = functional.one_hot(targets, said.shape[1]).to(said)
        activations = Activations(logits=supposed, features={}, twin=said)
        return self.detector.score_parts(activations, targets, scores=self.detector(activations))

    def scores_by_class(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Score images as if the network named each class in turn.

        Args:
            images: Shape ``(N, channels, H, W)``.

        Returns:
            Class logits, and scores under the name of each class, ``(N, C)`` both.
        """
        activations = self.activations(images)
        scores = self.detector(activations)
        classes = torch.arange(activations.logits.shape[1], device=scores.device)
        named = [self.detector.score_as(activations, one.expand(len(images)), scores=scores) for one in classes]
        return activations.logits, torch.stack(named, dim=1)

    def describe(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classify and score images, and give what an attack must make look natural.

        Args:
            images: Shape ``(N, channels, H, W)``, in the pixel range of the network.

        Returns:
            Class logits ``(N, C)``, scores ``(N,)``, and :meth:`Detector.describe` of the same pass.
        """
        activations = self.activations(images)
        return activations.logits, self.detector(activations), self.detector.describe(activations)


def network_activations(
    network: nn.Module,
    images: Tensor,
    layers: Sequence[str],
    *,
    views: Views | None = None,
    twin: TargetNetwork | None = None,
) -> Activations:
    """Run a network and keep logits, pooled features, the logits of views and of a second network.

    Args:
        network: The network under attack.
        images: Shape ``(N, channels, H, W)``, in its pixel range.
        layers: Names of the layers read, in network order.
        views: The views read; each costs a forward pass.
        twin: The second network; None leaves it out.

    Returns:
        The activations, with gradients where autograd records.
    """
    logits, features = extract_features(network, images, layers)
    seen = views.logits(network, images) if views is not None else {}
    second = None if twin is None else log_probabilities(twin(images), twin.spec.head)
    return Activations(logits=logits, features=dict(zip(layers, features, strict=True)), views=seen, twin=second)
