"""Labelled trajectories and draws that give every group the same weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from adv_detect.errors import DataError
from adv_detect.names import NATURAL


@dataclass(frozen=True)
class TrajectorySet:
    """Trajectories with their labels.

    Attributes:
        trajectories: Shape (N, L, K), float, finite; already ordered and cut.
        adversarial: Shape (N,), bool; True = adversarial.
        group: Attack of each row (``natural`` for clean images), N names or integers. A group is either natural
            or adversarial.
        group_ids: The same as integers from 0, in the sorted order of the groups, shape (N,), int64.

    Raises:
        DataError: Lengths or shapes disagree, a value is not finite, or a group mixes naturals and adversarials.
    """

    trajectories: Tensor
    adversarial: Tensor
    group: Sequence[str] | Tensor
    group_ids: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the form and number the groups."""
        self._check_form()
        names = self.group.cpu().numpy() if isinstance(self.group, Tensor) else np.asarray(self.group)
        unique, ids = np.unique(names, return_inverse=True)
        object.__setattr__(self, "group_ids", torch.as_tensor(ids, dtype=torch.int64, device=self.adversarial.device))
        adversarial = self.adversarial.cpu().numpy()
        mixed = sorted(set(unique[ids[adversarial]].tolist()) & set(unique[ids[~adversarial]].tolist()))
        if mixed:
            raise DataError(f"expected groups that are natural or adversarial, got both in {mixed}")

    @property
    def natural_id(self) -> int:
        """Number of the group of unchanged natural images; -1 where there is none."""
        names = self.group.tolist() if isinstance(self.group, Tensor) else list(self.group)
        return int(self.group_ids[names.index(NATURAL)]) if NATURAL in names else -1

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.trajectories)

    def _check_form(self) -> None:
        shape, rows = tuple(self.trajectories.shape), len(self.trajectories)
        if len(shape) != 3:
            raise DataError(f"expected trajectories of shape (N, L, K), got {shape}")
        if self.adversarial.dtype != torch.bool or self.adversarial.shape != (rows,) or len(self.group) != rows:
            raise DataError(
                f"expected {rows} bool labels and {rows} groups for trajectories of shape {shape}, got "
                f"{self.adversarial.dtype} labels of shape {tuple(self.adversarial.shape)} and {len(self.group)} groups"
            )
        if not torch.isfinite(self.trajectories).all():
            raise DataError("expected finite trajectories, got NaN or infinity")


def group_weights(group_ids: Tensor) -> Tensor:
    """Weigh each row by the inverse frequency of its group.

    Args:
        group_ids: Shape (N,), integers >= 0.

    Returns:
        Shape (N,), float64, summing to 1; every group present has the same total.
    """
    counts = torch.bincount(group_ids)
    return 1.0 / (counts[group_ids].double() * (counts > 0).sum())


def side_weights(group_ids: Tensor, adversarial: Tensor, natural: int) -> Tensor:
    """Weigh clean and adversarial rows alike, and within each the kinds.

    Args:
        group_ids: Shape (N,), integers >= 0.
        adversarial: Shape (N,), bool.
        natural: Id of the unchanged natural images.

    Returns:
        Shape (N,), float64, summing to 1. Every attack has the same total. Where there are benign changes, unchanged
        images have half of the clean side and the changes equal parts of the other half.
    """
    adversarial = adversarial.to(group_ids.device)
    weights = torch.zeros(len(group_ids), dtype=torch.float64, device=group_ids.device)
    sides = [adversarial, ~adversarial & (group_ids == natural), ~adversarial & (group_ids != natural)]
    shares = [0.5, 0.25, 0.25] if bool(sides[2].any()) and bool(sides[1].any()) else [0.5, 0.5, 0.5]
    for rows, share in zip(sides, shares, strict=True):
        if bool(rows.any()):
            weights[rows] = share * group_weights(group_ids[rows])
    return weights / weights.sum()


def alike(group_ids: Tensor, adversarial: Tensor, natural: int) -> Tensor:
    """Weigh every group alike, natural or attack: see :func:`group_weights`."""
    return group_weights(group_ids)


def balanced_draw(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draw as many rows as there are, with replacement, in proportion to their weights.

    Args:
        weights: Shape (N,), on the CPU, at least one positive.
        generator: CPU generator; the global random state is not used.

    Returns:
        Row indices, shape (N,), int64, on the CPU.
    """
    cumulative = weights.double().cumsum(0)
    points = torch.rand(len(weights), dtype=torch.float64, generator=generator) * cumulative[-1]
    return torch.searchsorted(cumulative, points, right=True).clamp_max(int(weights.nonzero()[-1]))
