"""Network and detector as one differentiable model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.views import Views


class DetectionModel(nn.Module):
    """Maps images to class logits and to scores in one pass, with gradients from both to the images.

    Attributes:
        network: The network under attack.
        detector: Activations to scores ``(N,)``.
        layers: Names of the layers read.
        views: The views that the detector reads.
    """

    def __init__(
        self, network: nn.Module, detector: Detector, layers: Sequence[str], views: Views | None = None
    ) -> None:
        """Join the parts, which are shared, not copied.

        Args:
            network: The network under attack.
            detector: A detector for it.
            layers: Names of the layers whose features are activations, in network order.
            views: The views that the detector reads; None where it reads none.
        """
        super().__init__()
        self.network = network
        self.detector = detector
        self.layers = tuple(layers)
        self.views = views or Views()

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
        plain = network_activations(self.network, images, self.layers)
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
    network: nn.Module, images: Tensor, layers: Sequence[str], views: Views | None = None
) -> Activations:
    """Run a network and keep logits, pooled features and the logits of views.

    Args:
        network: The network under attack.
        images: Shape ``(N, channels, H, W)``, in its pixel range.
        layers: Names of the layers read, in network order.
        views: The views read; each costs a forward pass.

    Returns:
        The activations, with gradients where autograd records.
    """
    logits, features = extract_features(network, images, layers)
    seen = views.logits(network, images) if views is not None else {}
    return Activations(logits=logits, features=dict(zip(layers, features, strict=True)), views=seen)
