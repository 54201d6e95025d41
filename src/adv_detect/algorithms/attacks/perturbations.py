"""Checks and measurements of attacked images, and the noise they are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from adv_detect.algorithms.attacks.result import AttackResult
from adv_detect.errors import AttackError
from adv_detect.params import Norm

EPSILON_SLACK = 1e-4
BOUNDS_SLACK = 1e-6
RESCALING_ROUNDS = 30
SMALLEST_NORM = 1e-12
ORDERS: dict[str, float] = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}


def norms_of(differences: Tensor, norm: Norm) -> Tensor:
    """Measure each row of ``(N, ...)`` in one norm; returns ``(N,)``."""
    rows = differences.flatten(1)
    measured: Tensor = torch.linalg.vector_norm(rows, ord=ORDERS[norm], dim=1)
    return measured


def perturbation_norms(images: Tensor, adversarials: Tensor) -> dict[str, Tensor]:
    """Measure how far attacked images lie from their sources.

    Args:
        images: Source images ``(N, channels, H, W)``.
        adversarials: Attacked images of the same shape.

    Returns:
        ``l2`` and ``linf``, each ``(N,)``, in pixel units.
    """
    differences = adversarials - images
    return {"l2": norms_of(differences, "l2"), "linf": norms_of(differences, "linf")}


def verify_result(
    result: AttackResult, images: Tensor, bounds: tuple[float, float], epsilon: float | None, norm: Norm | None
) -> None:
    """Refuse a result that cannot come from a sound attack.

    Args:
        result: What the attack returned.
        images: Its source images ``(N, channels, H, W)``.
        bounds: Lowest and highest pixel value.
        epsilon: Largest perturbation allowed, in ``norm``; None for no limit.
        norm: The norm of ``epsilon``.

    Raises:
        AttackError: When the shape differs, a pixel is not finite or out of bounds, a perturbation is larger
            than epsilon, or a success equals its source.
    """
    attacked = result.images
    if attacked.shape != images.shape:
        raise AttackError(f"expected attacked images of shape {tuple(images.shape)}, got {tuple(attacked.shape)}")
    _refuse(~torch.isfinite(attacked).flatten(1).all(dim=1), "hold pixels that are not finite")
    slack = BOUNDS_SLACK * (bounds[1] - bounds[0])
    outside = ((attacked < bounds[0] - slack) | (attacked > bounds[1] + slack)).flatten(1).any(dim=1)
    _refuse(outside, f"leave the pixel range {list(bounds)}")
    if epsilon is not None and norm is not None:
        too_far = norms_of(attacked - images, norm) > epsilon * (1 + EPSILON_SLACK) + slack
        _refuse(too_far, f"are further than epsilon = {epsilon:g} ({norm}) from their source")
    same = (attacked == images).flatten(1).all(dim=1)
    _refuse(result.success & same, "are called a success but equal their source")


def _refuse(bad: Tensor, what: str) -> None:
    if bool(bad.any()):
        rows = bad.nonzero().flatten().tolist()
        raise AttackError(f"{len(rows)} of {len(bad)} attacked images {what} (rows {rows[:5]})")


def noise_of_same_norm(
    images: Tensor, adversarials: Tensor, *, norm: Norm | None, bounds: tuple[float, float], seed: int
) -> Tensor:
    """Add to each image random noise as large as its adversarial perturbation.

    A direction is drawn per image: Gaussian for ``l1`` and ``l2``, random signs for ``linf``. It is clipped to
    the pixel range and re-scaled until the norm after clipping is that of the perturbation. Where the range
    leaves no room, the noise stays smaller (``perturbation_norms`` of the result tells by how much).

    Args:
        images: Source images ``(N, channels, H, W)``.
        adversarials: Their adversarial examples, same shape.
        norm: Norm to match; None means ``l2``.
        bounds: Lowest and highest pixel value.
        seed: Seed of the noise; the same on every device.

    Returns:
        Noisy images of the same shape.
    """
    kind: Norm = norm or "l2"
    wanted = norms_of(adversarials - images, kind)
    directions = _directions(images, kind, seed)
    scales = wanted / norms_of(directions, kind).clamp_min(SMALLEST_NORM)
    for _ in range(RESCALING_ROUNDS):
        noisy = _move(images, directions, scales, bounds)
        reached = norms_of(noisy - images, kind)
        scales = torch.where(reached > 0, scales * wanted / reached.clamp_min(SMALLEST_NORM), scales)
    return _move(images, directions, scales, bounds)


def _directions(images: Tensor, norm: Norm, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(images.shape, generator=generator, dtype=images.dtype).to(images.device)
    return drawn.sign() if norm == "linf" else drawn


def _move(images: Tensor, directions: Tensor, scales: Tensor, bounds: tuple[float, float]) -> Tensor:
    return (images + directions * scales.view(-1, *[1] * (images.ndim - 1))).clamp(*bounds)
