"""Network, class representatives and detector as one differentiable model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor, nn

from adv_detect.algorithms.distances import ClassDistances
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.representatives import Representatives
from adv_detect.algorithms.trajectories import order_classes
from adv_detect.params import DetectorParams


class DetectionModel(nn.Module):
    """Maps images to class logits and to detector logits in one pass, with gradients from both to the images.

    With ``order: ranked`` the ranking comes from the logits without gradient: gradients flow through the distances
    for the ranking that the image has.

    Attributes:
        network: The network under attack.
        distances: Features to trajectories ``(N, L, C)``.
        detector: Ordered trajectories ``(N, L, K)`` to logits ``(N,)``.
        params: What the detector reads and how.
        layers: Names of the layers read.
    """

    def __init__(
        self, network: nn.Module, representatives: Representatives, detector: nn.Module, params: DetectorParams
    ) -> None:
        """Join the parts; the network and the detector are shared, not copied.

        Args:
            network: The network under attack.
            representatives: Its class representatives.
            detector: A detector for trajectories of the form that ``params`` describes.
            params: Representative, distance, class order and ``top_k``.
        """
        super().__init__()
        self.network = network
        self.detector = detector
        self.params = params
        self.layers = representatives.layers
        self.distances = ClassDistances(
            representatives.of(params.representative), params.distance, whitening=representatives.whitening
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Classify images and score them.

        Args:
            images: Shape ``(N, channels, H, W)``, in the pixel range of the network.

        Returns:
            Class logits ``(N, C)``, and detector logits ``(N,)``: higher is more likely adversarial.
        """
        logits, scores, _ = self.describe(images)
        return logits, scores

    def describe(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classify and score images, and give the trajectories that the detector read.

        Args:
            images: Shape ``(N, channels, H, W)``, in the pixel range of the network.

        Returns:
            Class logits ``(N, C)``, detector logits ``(N,)``, ordered trajectories ``(N, L, K)``.
        """
        logits, scores, _, ordered, _ = self._all(images)
        return logits, scores, ordered

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classify and score images, and give their features at the last layer.

        Args:
            images: Shape ``(N, channels, H, W)``, in the pixel range of the network.

        Returns:
            Class logits ``(N, C)``, detector logits ``(N,)``, features of the last layer ``(N, D)``.
        """
        logits, scores, _, _, features = self._all(images)
        return logits, scores, features

    def measure(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classify and score images, and give their distances to all classes, in the order of the classes.

        Args:
            images: Shape ``(N, channels, H, W)``, in the pixel range of the network.

        Returns:
            Class logits ``(N, C)``, detector logits ``(N,)``, trajectories ``(N, L, C)`` before ordering.
        """
        logits, scores, distances, _, _ = self._all(images)
        return logits, scores, distances

    def _all(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        logits, features = extract_features(self.network, images, self.layers)
        distances = self.distances(features)
        ordered = order_classes(distances, logits, order=self.params.order, top_k=self.params.top_k)
        with _recurrent_gradients(ordered, self.detector):
            scores = self.detector(ordered)
        return logits, scores, distances, ordered, features[-1]


class _CudnnSwitch:
    """Keeps cuDNN off while anyone needs it off; the switch is one for all threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._before = True

    def turn_off(self) -> None:
        with self._lock:
            if not self._users:
                self._before = torch.backends.cudnn.enabled
                torch.backends.cudnn.enabled = False
            self._users += 1

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                torch.backends.cudnn.enabled = self._before


_CUDNN = _CudnnSwitch()


@contextmanager
def _recurrent_gradients(trajectories: Tensor, detector: nn.Module) -> Iterator[None]:
    """Keep cuDNN out where a gradient is needed in evaluation mode: its LSTM has no backward there."""
    if trajectories.is_cuda and torch.is_grad_enabled() and not detector.training:
        _CUDNN.turn_off()
        try:
            yield
        finally:
            _CUDNN.release()
    else:
        yield
