"""A detector that reads an image's trajectory with an LSTM or an MLP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector, FitData, FitHistory, LearnsFrom, Reads
from adv_detect.algorithms.detectors.trajectory.readout import TrajectoryReadout
from adv_detect.algorithms.detectors.trajectory.registry import build_readout
from adv_detect.algorithms.detectors.trajectory.sampling import TrajectorySet
from adv_detect.algorithms.detectors.trajectory.training import fit_readout
from adv_detect.algorithms.distances import ClassDistances
from adv_detect.algorithms.representatives import Representatives
from adv_detect.algorithms.trajectories import order_classes
from adv_detect.errors import DataError
from adv_detect.params import DetectorParams

HELD_OUT = 5
"""Without validation images every fifth image is one."""


class TrajectoryDetector(Detector):
    """Distances of the features to the class representatives, ordered, read by a small network.

    Source: Massoli et al., Computer Vision and Image Understanding 2021 (arXiv 1912.02918); ``mahalanobis`` and
    ``ranked`` are additions. With ``order: ranked`` the ranking comes from the logits without gradient: gradients flow
    through the distances for the ranking that the image has.

    Attributes:
        params: Kind of read-out, representative, distance, class order and ``top_k``.
        representatives: Class representatives of the network under attack.
        distances: Features to ``(N, L, C)``; follows from the representatives, so it is not part of the state.
        readout: Ordered trajectories ``(N, L, K)`` to logits ``(N,)``.
    """

    learns_from = LearnsFrom.ATTACKS
    reads = Reads(layers=True)
    differentiable = True

    def __init__(
        self, representatives: Representatives, params: DetectorParams, readout: TrajectoryReadout | None = None
    ) -> None:
        """Join distances and read-out.

        Args:
            representatives: Class representatives of the network under attack.
            params: What is read and how.
            readout: The read-out; None makes a fresh one.
        """
        super().__init__()
        self.params = params
        self.layers = representatives.layers
        self.representatives = representatives
        self.distances = ClassDistances(
            representatives.of(params.representative), params.distance, whitening=representatives.whitening
        )
        self.readout = readout if readout is not None else self._fresh(seed=0)

    def forward(self, activations: Activations) -> Tensor:
        """Score images: logits of the read-out, ``(N,)``."""
        ordered = self.trajectories(activations)
        with recurrent_gradients(ordered, self.readout):
            scores: Tensor = self.readout(ordered)
        return scores

    def describe(self, activations: Activations) -> Tensor:
        """Give the distances to all classes ``(N, L, C)``, in the order of the classes."""
        key = (self.params.representative, self.params.distance, id(self.representatives))
        return activations.derived(key, lambda: self.distances(activations.of_layers(self.layers)))

    def trajectories(self, activations: Activations) -> Tensor:
        """Give the trajectories ``(N, L, K)`` as the read-out takes them."""
        distances = self.describe(activations)
        return order_classes(distances, activations.logits, order=self.params.order, top_k=self.params.top_k)

    def fit(self, clean: Activations, attacked: Activations | None, *, seed: int) -> FitHistory:
        """Learn with every fifth image held back to choose the epoch by."""
        if attacked is None:
            raise DataError(f"a {self.params.kind} detector learns from attacks, got none; give attacked images")
        parts = [held_out(one) for one in (clean, attacked)]
        (clean_train, clean_held), (attacked_train, attacked_held) = parts
        return self.fit_chosen(FitData(clean_train, attacked_train, clean_held, attacked_held), seed=seed)

    def fit_chosen(self, data: FitData, *, seed: int) -> FitHistory:
        """Learn from the train images and keep the epoch that does best on the validation images."""
        train, validation = (
            self._labelled(clean, attacked)
            for clean, attacked in (
                (data.clean, data.attacked),
                (data.validation_clean, data.validation_attacked),
            )
        )
        fitted = fit_readout(train, validation, params=self.params, fit=data.params, seed=seed, device=data.device)
        self.readout = fitted.detector
        return fitted.history

    def _labelled(self, clean: Activations, attacked: Activations | None) -> TrajectorySet:
        if attacked is None:
            raise DataError(f"a {self.params.kind} detector learns from attacks, got none; give attacked images")
        groups = attacked.groups or ("attack",) * len(attacked)
        rows = torch.cat([self.trajectories(one) for one in (clean, attacked)])
        adversarial = torch.arange(len(rows)) >= len(clean)
        return TrajectorySet(rows, adversarial, ["natural"] * len(clean) + list(groups))

    def _fresh(self, seed: int) -> TrajectoryReadout:
        classes = len(self.representatives.class_names)
        width = min(self.params.top_k or classes, classes)
        return build_readout(self.params, layers=len(self.layers), classes=width, seed=seed)


def untrained_detector(like: TrajectoryDetector, seed: int) -> TrajectoryDetector:
    """Make a control: random weights in the form, and with the standardisation, of a trained detector.

    Args:
        like: The trained detector.
        seed: Decides the weights.

    Returns:
        A detector in evaluation mode that has learned nothing.
    """
    made = TrajectoryDetector(like.representatives, like.params)
    made.readout = made._fresh(seed)
    made.readout.set_standardisation(like.readout.mean, like.readout.std)
    return made.eval().requires_grad_(False)


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
def recurrent_gradients(trajectories: Tensor, readout: torch.nn.Module) -> Iterator[None]:
    """Keep cuDNN out where a gradient is needed in evaluation mode: its LSTM has no backward there."""
    if trajectories.is_cuda and torch.is_grad_enabled() and not readout.training:
        _CUDNN.turn_off()
        try:
            yield
        finally:
            _CUDNN.release()
    else:
        yield


def held_out(activations: Activations) -> tuple[Activations, Activations]:
    """Hold every fifth image back: those to learn from, and those to choose the epoch by."""
    held = torch.arange(len(activations)) % HELD_OUT == HELD_OUT - 1
    return activations.select(~held), activations.select(held)
