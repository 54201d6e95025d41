"""Trajectories: the distances of an image to all class representatives, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from torch import Tensor

from adv_detect.algorithms.distances import ClassDistances
from adv_detect.errors import ConfigurationError, DataError, unknown_choice
from adv_detect.params import ClassOrder

ORDERS: tuple[str, ...] = get_args(ClassOrder)


def trajectories(
    features: Sequence[Tensor],
    representatives: Sequence[Tensor],
    distance: str,
    *,
    whitening: Sequence[Tensor] | None = None,
) -> Tensor:
    """Measure features against class representatives at every layer.

    Source: Massoli et al., "Detection of Face Recognition Adversarial Attacks", 2021 (arXiv 1912.02918);
    ``mahalanobis`` is an addition. Differentiable in the features; at distance zero, and at a zero vector for
    ``cosine``, the gradient is zero.

    Args:
        features: One ``(N, D_l)`` tensor per layer, in network order.
        representatives: One ``(C, D_l)`` tensor per layer.
        distance: ``euclidean``; ``cosine``, the similarity in [-1, 1], 0 for a zero vector; or ``mahalanobis``,
            the Euclidean distance after whitening.
        whitening: One symmetric ``(D_l, D_l)`` tensor per layer, for ``mahalanobis``.

    Returns:
        Shape ``(N, L, C)``; float64 where the features are, else float32.

    Raises:
        ConfigurationError: Unknown distance, or ``mahalanobis`` without whitening.
        DataError: Shapes do not fit together.
    """
    result: Tensor = ClassDistances(representatives, distance, whitening=whitening)(features)
    return result


def order_classes(trajectories: Tensor, logits: Tensor, *, order: str, top_k: int | None = None) -> Tensor:
    """Put the class axis into the order that a detector reads.

    Args:
        trajectories: Shape ``(N, L, C)``.
        logits: Class logits of the same images, shape ``(N, C)``; only their ranking is used, without gradient.
        order: ``fixed`` keeps the order of the classes; ``ranked`` sorts the classes of each image by its logits,
            best first, equal logits by class index.
        top_k: With ``ranked``, how many classes to keep; None keeps all.

    Returns:
        Shape ``(N, L, K)``, differentiable in the distances.

    Raises:
        ConfigurationError: Unknown order, or a ``top_k`` that is below 1, above C or not for this order.
        DataError: The logits do not belong to the trajectories.
    """
    if order not in ORDERS:
        raise unknown_choice("order", order, ORDERS)
    count, layers, classes = trajectories.shape
    _check_top_k(top_k, order, classes)
    if order == "fixed":
        return trajectories
    if tuple(logits.shape) != (count, classes):
        raise DataError(
            f"expected logits of shape ({count}, {classes}) like the trajectories, got {tuple(logits.shape)}"
        )
    ranking = logits.detach().argsort(dim=1, descending=True, stable=True)[:, :top_k]
    return trajectories.gather(2, ranking[:, None, :].expand(-1, layers, -1))


def _check_top_k(top_k: int | None, order: str, classes: int) -> None:
    if top_k is None:
        return
    if order != "ranked":
        raise ConfigurationError(f"top_k: only with order 'ranked', got top_k={top_k} with order {order!r}")
    if not 1 <= top_k <= classes:
        raise ConfigurationError(f"top_k: expected 1 to {classes}, the number of classes, got {top_k}")
