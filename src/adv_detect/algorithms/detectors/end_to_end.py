"""Network and detector as one differentiable model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.robust_losses import log_probabilities
from adv_detect.networks.target import TargetNetwork


class DetectionModel(nn.Module):
    """Maps images to class logits and to scores in one pass, with gradients from both to the images.

    Attributes:
        network: The network under attack.
        detector: Activations to scores ``(N,)``.
        layers: Names of the layers read.
        twin: The second network; None where the detector does not read it.
    """

    def __init__(
        self, network: nn.Module, detector: Detector, layers: Sequence[str], *, twin: TargetNetwork | None = None
    ) -> None:
        """Join the parts, which are shared, not copied.

        Args:
            network: The network under attack.
            detector: A detector for it.
            layers: Names of the layers whose features are activations, in network order.
            twin: The second network, for a detector that reads it.
        """
        super().__init__()
        self.network = network
        self.detector = detector
        self.layers = tuple(layers)
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
        """Run the network once and keep what detectors read."""
        return network_activations(self.network, images, self.layers, twin=self.twin)

    def evade(self, images: Tensor, targets: Tensor | None, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
        """Classify and score images, and say how far they are from passing.

        Args:
            images: Shape ``(N, channels, H, W)``, in the pixel range of the network.
            targets: Class that the attacker wants, int64, ``(N,)``; None for the one that the network names.
            threshold: Score above which an image counts as adversarial.

        Returns:
            Class logits ``(N, C)``, scores ``(N,)``, and :meth:`Detector.evasion_loss` of the same pass, ``(N,)``.
        """
        activations = self.activations(images)
        logits, scores = activations.logits, self.detector(activations)
        aims = logits.detach().argmax(dim=1) if targets is None else targets
        return logits, scores, self.detector.evasion_loss(activations, aims, scores=scores, threshold=threshold)

    def evasion(self, images: Tensor, targets: Tensor, threshold: float) -> Tensor:
        """Say how far images are from passing, without the network where the detector reads the twin alone.

        Args:
            images: Shape ``(N, channels, H, W)``.
            targets: Class that the network is supposed to name, int64, ``(N,)``.
            threshold: Score above which an image counts as adversarial.

        Returns:
            Evasion losses ``(N,)``.
        """
        reads = self.detector.reads
        if self.twin is None or reads.layers or reads.views:
            return self.evade(images, targets, threshold)[2]
        said = log_probabilities(self.twin(images), self.twin.spec.head)
        supposed = functional.one_hot(targets, said.shape[1]).to(said)
        activations = Activations(logits=supposed, features={}, twin=said)
        scores = self.detector(activations)
        return self.detector.evasion_loss(activations, targets, scores=scores, threshold=threshold)

    def evasion_by_class(self, images: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Say for every class how far images are from passing under its name.

        Args:
            images: Shape ``(N, channels, H, W)``.
            threshold: Score above which an image counts as adversarial.

        Returns:
            Class logits ``(N, C)``, and evasion losses ``(N, C)``.
        """
        activations = self.activations(images)
        scores = self.detector(activations)
        classes = torch.arange(activations.logits.shape[1], device=scores.device)
        losses = [
            self.detector.evasion_loss(activations, one.expand(len(images)), scores=scores, threshold=threshold)
            for one in classes
        ]
        return activations.logits, torch.stack(losses, dim=1)

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
    network: nn.Module, images: Tensor, layers: Sequence[str], *, twin: TargetNetwork | None = None
) -> Activations:
    """Run a network once and keep logits and pooled features.

    Args:
        network: The network under attack.
        images: Shape ``(N, channels, H, W)``, in its pixel range.
        layers: Names of the layers read, in network order.
        twin: The second network; None leaves it out.

    Returns:
        The activations, with gradients where autograd records.
    """
    logits, features = extract_features(network, images, layers)
    second = None if twin is None else log_probabilities(twin(images), twin.spec.head)
    return Activations(logits=logits, features=dict(zip(layers, features, strict=True)), twin=second)
