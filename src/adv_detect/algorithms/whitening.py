"""The whitening of a layer: inverse square root of the shrunk within-class covariance, tied over classes."""

from __future__ import annotations

import torch
from torch import Tensor

from adv_detect.errors import unknown_choice

EIGENVALUE_FLOOR = 1e-10
"""Smallest eigenvalue, relative to the largest, that is inverted; below it a direction counts as constant."""

SHRINKAGES = ("ledoit_wolf", "oas")


class RowSampler:
    """Keeps a uniform random sample of a stream of rows: those with the smallest random keys.

    It decides; whoever holds the rows moves them. So several layers share one decision.
    """

    def __init__(self, size: int, seed: int) -> None:
        """Start empty.

        Args:
            size: Most rows kept.
            seed: Seed of the keys.
        """
        self._generator = torch.Generator().manual_seed(seed)
        self._keys = torch.full((size,), float("inf"), dtype=torch.float64)

    def offer(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw keys for new rows and make room for those that enter the sample.

        Args:
            count: Number of new rows.

        Returns:
            Which of the new rows enter, and the slots of the sample that they take; int64, equally long.
        """
        size = len(self._keys)
        keys = torch.cat([self._keys, torch.rand(count, generator=self._generator, dtype=torch.float64)])
        order = keys.argsort(stable=True)
        entering, leaving = order[:size], order[size:]
        rows = entering[entering >= size] - size
        slots = leaving[leaving < size]
        self._keys[slots] = keys[rows + size]
        return rows, slots

    @property
    def filled(self) -> Tensor:
        """Slots in use, int64."""
        return torch.nonzero(self._keys.isfinite()).flatten()


class WithinClassCovariance:
    """Accumulates the covariance around class means, exactly, and a sample of the centred features.

    Attributes:
        width: Feature width D.
    """

    def __init__(self, width: int, sample_size: int) -> None:
        """Start empty.

        Args:
            width: Feature width D.
            sample_size: Rows of the sample.
        """
        self.width = width
        self._scatter = torch.zeros(width, width, dtype=torch.float64)
        self._sample = torch.empty(sample_size, width)
        self._count = 0

    def add(self, features: Tensor, *, rows: Tensor, slots: Tensor) -> None:
        """Add one class.

        Args:
            features: All features of the class, shape ``(n, D)``.
            rows: Which of them enter the sample.
            slots: Where they stand there.
        """
        values = features.detach().to("cpu", torch.float64)
        centred = values - values.mean(dim=0)
        self._scatter.addmm_(centred.T, centred)
        self._sample[slots] = centred[rows].to(self._sample.dtype)
        self._count += len(features)

    def whitening(self, shrinkage: str, filled: Tensor) -> Tensor:
        """Compute the whitening of all classes added.

        Args:
            shrinkage: ``ledoit_wolf`` or ``oas``.
            filled: Slots of the sample in use.

        Returns:
            Symmetric matrix, float32, shape ``(D, D)``; the identity when no feature varies within a class.
        """
        coefficient = shrinkage_coefficient(self._sample[filled], shrinkage)
        covariance = self._scatter / max(self._count, 1)
        return inverse_square_root(shrunk_covariance(covariance, coefficient)).to(torch.float32)


def shrinkage_coefficient(sample: Tensor, shrinkage: str) -> float:
    """Estimate how far a covariance is to be pulled towards a multiple of the identity.

    Sources: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004;
    Chen et al., "Shrinkage algorithms for MMSE covariance estimation", 2010; both as in scikit-learn. The estimate
    is one for the size of the sample: with more data than the sample holds it pulls a little further than needed.

    Args:
        sample: Centred features, shape ``(n, D)``.
        shrinkage: ``ledoit_wolf`` or ``oas``.

    Returns:
        Coefficient in [0, 1]; 1 when there are fewer than two rows.

    Raises:
        ConfigurationError: Unknown name.
    """
    if shrinkage not in SHRINKAGES:
        raise unknown_choice("representatives.shrinkage", shrinkage, SHRINKAGES)
    if len(sample) < 2:
        return 1.0
    from sklearn.covariance import ledoit_wolf_shrinkage, oas

    values = sample.to(torch.float64).numpy()
    if shrinkage == "ledoit_wolf":
        return float(ledoit_wolf_shrinkage(values, assume_centered=True))
    return float(oas(values, assume_centered=True)[1])


def shrunk_covariance(covariance: Tensor, coefficient: float) -> Tensor:
    """Mix a covariance with the identity scaled to its mean variance.

    Args:
        covariance: Shape ``(D, D)``.
        coefficient: Share of the identity, in [0, 1].

    Returns:
        Shape ``(D, D)``, of the same trace.
    """
    shrunk = (1 - coefficient) * covariance
    shrunk.diagonal().add_(coefficient * covariance.diagonal().mean())
    return shrunk


def inverse_square_root(matrix: Tensor) -> Tensor:
    """Invert the symmetric square root of a covariance.

    Args:
        matrix: Symmetric, without negative eigenvalues beyond rounding, float64, shape ``(D, D)``.

    Returns:
        Symmetric matrix ``(D, D)``; eigenvalues under ``EIGENVALUE_FLOOR`` of the largest are raised to
        it first. The identity for a matrix of zeros.
    """
    values, vectors = torch.linalg.eigh(matrix)
    largest = values[-1]
    if float(largest) <= 0:
        return torch.eye(len(matrix), dtype=matrix.dtype)
    scaled: Tensor = vectors * values.clamp_min(EIGENVALUE_FLOOR * largest).rsqrt()
    inverse: Tensor = scaled @ vectors.T
    return inverse
