"""One-class support vector machines: fitted by scikit-learn, kept as tensors, scored in torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adv_detect.algorithms.neighbours import BLOCK_ELEMENTS

SMALLEST_SPREAD = 1e-6
"""Relative to the largest: inputs that vary less do not count."""


class OneClassSVM(nn.Module):
    """One-class support vector machine with Gaussian kernels on standardised principal components.

    Attributes:
        components: Most principal components kept.
        nu: Share of the images to learn from that may lie outside.
        mean: Of the inputs, ``(D,)``.
        projection: To standardised components, ``(D, K)``.
        vectors: Support vectors, ``(V, K)``.
        coefficients: Logarithms of their coefficients, ``(V,)``.
        gamma: Of the kernel.
        offset: Logarithm of the threshold of the decision function.
    """

    mean: Tensor
    projection: Tensor
    vectors: Tensor
    coefficients: Tensor
    gamma: Tensor
    offset: Tensor

    def __init__(self, width: int, *, nu: float, components: int) -> None:
        super().__init__()
        self.nu, self.components = nu, components
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("projection", torch.zeros(width, 0, dtype=torch.float64))
        self.register_buffer("vectors", torch.zeros(0, 0, dtype=torch.float64))
        self.register_buffer("coefficients", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("gamma", torch.ones((), dtype=torch.float64))
        self.register_buffer("offset", torch.zeros((), dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        """Score inputs ``(N, D)``: above 0 outside the class.

        Returns:
            Minus the logarithm of the ratio of kernels to threshold, float64 ``(N,)``: a monotone form of the decision
            function that goes on rising far from all support vectors, where that function is constant.
        """
        points = self.project(inputs)
        rows = max(1, BLOCK_ELEMENTS // max(self.vectors.numel(), 1))
        return torch.cat([self._block(part) for part in torch.split(points, rows)])

    def project(self, inputs: Tensor) -> Tensor:
        """Give the standardised principal components, ``(N, K)``."""
        return (inputs.double() - self.mean) @ self.projection

    def fit(self, inputs: Tensor) -> None:
        """Learn from inputs ``(N, D)`` of the class."""
        from sklearn.svm import OneClassSVM as Solver

        rows = inputs.detach().double()
        self.mean = rows.mean(dim=0)
        self.projection = principal_projection(rows - self.mean, self.components)
        points = self.project(rows)
        gamma = 1 / max(points.shape[1], 1)
        solved = Solver(kernel="rbf", gamma=gamma, nu=self.nu).fit(points.numpy())
        self.gamma.fill_(gamma)
        self.vectors = torch.from_numpy(solved.support_vectors_).contiguous()
        self.coefficients = torch.from_numpy(solved.dual_coef_[0]).log()
        # dual_coef_ @ kernels - rho: the intercept is minus rho
        self.offset.fill_(torch.tensor(-float(solved.intercept_[0])).clamp_min(1e-300).log())

    def _block(self, points: Tensor) -> Tensor:
        squares = (points[:, None, :] - self.vectors).square().sum(dim=2)
        return self.offset - (self.coefficients - self.gamma * squares).logsumexp(dim=1)


def principal_projection(centred: Tensor, most: int) -> Tensor:
    """Find the map to standardised principal components.

    Args:
        centred: Shape ``(N, D)``, of mean zero.
        most: Components kept at most; those without spread are left out, but for the first.

    Returns:
        Shape ``(D, K)``; the components of the rows have variance 1.
    """
    _, spread, directions = torch.linalg.svd(centred, full_matrices=False)
    spread = spread / max(len(centred) - 1, 1) ** 0.5
    kept = spread > SMALLEST_SPREAD * spread[0].clamp_min(1e-12)
    kept[0] = True
    kept[most:] = False
    projection: Tensor = (directions[kept] / spread[kept].clamp_min(1e-12)[:, None]).T
    return projection.contiguous()
