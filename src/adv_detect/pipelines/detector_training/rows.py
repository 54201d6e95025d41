"""Trajectories of many shards as one table for one detector configuration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from adv_detect.algorithms.detector_training import TrajectorySet
from adv_detect.algorithms.trajectories import column_of, order_classes
from adv_detect.errors import DataError
from adv_detect.params import DetectorParams
from adv_detect.sharding import ShardContent, ShardStore

NATURAL = "natural"


@dataclass(frozen=True)
class TrajectoryRows:
    """Trajectories as one detector configuration reads them.

    Attributes:
        trajectories: Shape ``(N, L, K)``.
        success: Whether the attack succeeded, bool ``(N,)``; False for natural images.
        groups: ``natural`` or ``<attack>/<criterion>`` of each row.
    """

    trajectories: Tensor
    success: Tensor
    groups: list[str]

    def only(self, group: str) -> TrajectoryRows:
        """Keep the rows of one group."""
        return self._keep(torch.tensor([name == group for name in self.groups], dtype=torch.bool))

    def successes(self) -> TrajectoryRows:
        """Keep natural images and successful attacks."""
        natural = torch.tensor([name == NATURAL for name in self.groups], dtype=torch.bool)
        return self._keep(natural | self.success)

    def as_set(self) -> TrajectorySet:
        """Give the rows the form that training takes."""
        adversarial = torch.tensor([name != NATURAL for name in self.groups], dtype=torch.bool)
        return TrajectorySet(trajectories=self.trajectories, adversarial=adversarial, group=self.groups)

    def _keep(self, mask: Tensor) -> TrajectoryRows:
        groups = [name for name, kept in zip(self.groups, mask.tolist(), strict=True) if kept]
        return TrajectoryRows(self.trajectories[mask], self.success[mask], groups)


def read_rows(
    store: ShardStore, params: DetectorParams, *, split: str, attacks: Iterable[str], criteria: Iterable[str]
) -> Iterator[TrajectoryRows]:
    """Read the natural images and the given attacks of one split, shard by shard.

    Args:
        store: Shards of trajectories.
        params: The detector configuration, for its distance and class order.
        split: ``train``, ``validation`` or ``test``.
        attacks: Configured attack names.
        criteria: Criteria of the attacks.

    Yields:
        The rows of one shard.
    """
    prefixes = [f"{NATURAL}/{split}-"] + [f"{name}/{one}/{split}-" for name in attacks for one in criteria]
    for prefix in prefixes:
        for key in store.keys(prefix):
            yield read_shard(store, key, params)


def read_shard(store: ShardStore, key: str, params: DetectorParams) -> TrajectoryRows:
    """Read one shard as one detector configuration sees it."""
    content = store.read(key)
    ordered = read_trajectories(content, params)
    group = key.rsplit("/", 1)[0]
    return TrajectoryRows(ordered, content.tensors["success"], [group] * len(ordered))


def read_trajectories(content: ShardContent, params: DetectorParams) -> Tensor:
    """Take from one shard the trajectories ``(n, L, K)`` that one detector configuration reads."""
    stored = content.tensors[column_of(params)]
    return order_classes(stored, content.tensors["logits"], order=params.order, top_k=params.top_k)


def stack_rows(parts: Iterable[TrajectoryRows]) -> TrajectoryRows:
    """Put shards below each other; there must be at least one."""
    found = list(parts)
    if not found:
        raise DataError(
            "trajectories: expected shards of the wanted split, got none; run the pipeline detector_training"
        )
    return TrajectoryRows(
        torch.cat([part.trajectories for part in found]),
        torch.cat([part.success for part in found]),
        [name for part in found for name in part.groups],
    )
