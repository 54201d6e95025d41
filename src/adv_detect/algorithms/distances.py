"""Distances of features to the class representatives of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from adv_detect.errors import ConfigurationError, DataError, unknown_choice
from adv_detect.params import Distance

DISTANCES: tuple[str, ...] = get_args(Distance)


class ClassDistances(nn.Module):
    """Measures features of L layers against the class representatives; differentiable in the features.

    All that depends on the representatives alone (centring, whitening, norms) is computed once, here, and held in
    buffers that move with the module and are no part of its state. Distances are computed as matrix products in float64
    on centred points: a float32 product would lose all digits between close points, while differences of every pair
    take about 20 times as long.

    Attributes:
        distance: ``euclidean``, ``cosine`` (similarity) or ``mahalanobis`` (Euclidean after whitening).
        layers: Number of layers L.
    """

    def __init__(
        self, representatives: Sequence[Tensor], distance: str, *, whitening: Sequence[Tensor] | None = None
    ) -> None:
        """Prepare the representatives.

        Args:
            representatives: One ``(C, D_l)`` tensor per layer.
            distance: ``euclidean``, ``cosine`` or ``mahalanobis``.
            whitening: One ``(D_l, D_l)`` tensor per layer; read for ``mahalanobis`` only.

        Raises:
            ConfigurationError: Unknown distance, or ``mahalanobis`` without whitening.
            DataError: Shapes do not fit together.
        """
        super().__init__()
        if distance not in DISTANCES:
            raise unknown_choice("distance", distance, DISTANCES)
        _check_representatives(representatives)
        self.distance = distance
        self.layers = len(representatives)
        maps = _maps(representatives, distance, whitening)
        for layer, (points, whitener) in enumerate(zip(representatives, maps, strict=True)):
            self._prepare(layer, points.detach().to(torch.float64), whitener)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Measure every image against every class at every layer.

        Args:
            features: One ``(N, D_l)`` tensor per layer, on the device of the module.

        Returns:
            Shape ``(N, L, C)``; float64 where the features are, else float32.

        Raises:
            DataError: Number of layers, or a shape, differs from that of the representatives.
        """
        self._check(features)
        return torch.stack([self._measure(layer, values) for layer, values in enumerate(features)], dim=1)

    def _prepare(self, layer: int, points: Tensor, whitener: Tensor | None) -> None:
        """Store a layer's points and what turns features into the same space."""
        if self.distance == "cosine":
            self.register_buffer(f"points_{layer}", _normalised(points), persistent=False)
            return
        centre = points.mean(dim=0)
        points = points - centre if whitener is None else (points - centre) @ whitener
        self.register_buffer(f"centre_{layer}", centre, persistent=False)
        self.register_buffer(f"whitener_{layer}", whitener, persistent=False)
        self.register_buffer(f"points_{layer}", points, persistent=False)
        self.register_buffer(f"squares_{layer}", points.square().sum(dim=1), persistent=False)

    def _measure(self, layer: int, features: Tensor) -> Tensor:
        """Measure one layer: ``(N, D_l)`` to ``(N, C)``."""
        result = torch.float64 if features.dtype == torch.float64 else torch.float32
        points = self.get_buffer(f"points_{layer}").to(torch.float64)
        values = features.to(torch.float64)
        if self.distance == "cosine":
            return (_normalised(values) @ points.T).to(result)
        values = values - self.get_buffer(f"centre_{layer}")
        if self.distance == "mahalanobis":
            values = values @ self.get_buffer(f"whitener_{layer}").to(torch.float64)
        squares = self.get_buffer(f"squares_{layer}").to(torch.float64)
        return _euclidean(values, points, squares, torch.finfo(result).eps).to(result)

    def _check(self, features: Sequence[Tensor]) -> None:
        if len(features) != self.layers:
            raise DataError(f"expected features of {self.layers} layers, one tensor each, got {len(features)}")
        for layer, values in enumerate(features):
            width = self.get_buffer(f"points_{layer}").shape[1]
            if values.dim() != 2 or values.shape[1] != width or values.shape[0] != features[0].shape[0]:
                raise DataError(
                    f"expected features of shape ({features[0].shape[0]}, {width}) for layer {layer}, "
                    f"got {tuple(values.shape)}; read them from the layers that the representatives come from"
                )


def _euclidean(values: Tensor, points: Tensor, squares: Tensor, resolution: float) -> Tensor:
    """Euclidean distances ``(N, C)`` in float64 from ``|a|^2 + |b|^2 - 2 ab``.

    A distance below ``resolution / 2`` of the norms cannot be told from zero at the precision of the features: it
    is zero, and so is its gradient, where the slope of the root would be infinite.
    """
    norms = values.square().sum(dim=1, keepdim=True) + squares
    squared = norms - 2 * (values @ points.T)
    apart = squared.detach() > (resolution / 2) ** 2 * norms.detach()
    return torch.where(apart, squared, 1.0).sqrt() * apart


def _normalised(vectors: Tensor) -> Tensor:
    """Scale rows to length one; a zero vector stays zero and passes no gradient."""
    squares = vectors.square().sum(dim=1, keepdim=True)
    filled = squares.detach() > 0
    return vectors * (torch.where(filled, squares, 1.0).rsqrt() * filled)


def _check_representatives(representatives: Sequence[Tensor]) -> None:
    shapes = [tuple(points.shape) for points in representatives]
    if not shapes or any(len(shape) != 2 or shape[0] != shapes[0][0] or shape[0] == 0 for shape in shapes):
        raise DataError(f"expected representatives of shape (C, D) per layer with the same C >= 1, got {shapes}")


def _maps(representatives: Sequence[Tensor], distance: str, whitening: Sequence[Tensor] | None) -> list[Tensor | None]:
    """Give the whitening of each layer in float64 for ``mahalanobis``, else None."""
    if distance != "mahalanobis":
        return [None] * len(representatives)
    if whitening is None:
        raise ConfigurationError(
            "whitening: expected one (D, D) matrix per layer for distance 'mahalanobis', got None; "
            "pass the whitening of the representatives"
        )
    expected = [(points.shape[1], points.shape[1]) for points in representatives]
    got = [tuple(matrix.shape) for matrix in whitening]
    if got != expected:
        raise DataError(f"expected whitening of shapes {expected}, got {got}")
    return [matrix.detach().to(torch.float64) for matrix in whitening]
