"""The run that is checked: its nodes, what they read, and the blocks of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from adv_detect.fields import Block
from adv_detect.images import shape_of
from adv_detect.networks.registry import REGISTRY, default_layers
from adv_detect.networks.target import TargetNetwork, build_target
from adv_detect.params import BLOCKS, NetworkParams, TargetTrainingParams

if TYPE_CHECKING:
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

BlockT = TypeVar("BlockT", bound=Block)
NAMES = {kind: name for name, kind in BLOCKS.items()}
PARAMETER = "params:"
SHOWN_NAMES = 5  # of classes, in a message


@dataclass(frozen=True)
class Run:
    """Nodes that are going to run, with their datasets and parameters.

    Attributes:
        pipeline: The nodes.
        catalog: Datasets and parameters.
        own_attacks: ``adversarial_generation.attacks`` as environment and command line state it, without the base
            configuration; None where that is not known.
    """

    pipeline: Pipeline
    catalog: DataCatalog
    own_attacks: Mapping[str, Any] | None = None

    @cached_property
    def inputs(self) -> frozenset[str]:
        """Names of all that the nodes read, made by the run or not."""
        return frozenset(name for node in self.pipeline.nodes for name in node.inputs)

    @cached_property
    def from_disk(self) -> frozenset[str]:
        """Names of the datasets that the nodes read and do not make."""
        return frozenset(
            name for name in self.pipeline.inputs() if not name.startswith(PARAMETER) and name != "parameters"
        )

    @cached_property
    def pipelines(self) -> tuple[str, ...]:
        """Names of the pipelines that the nodes belong to, by their tags, in the order in which they run."""
        return tuple(dict.fromkeys(tag for node in self.pipeline.nodes for tag in sorted(node.tags)))

    def block(self, kind: type[BlockT]) -> BlockT | None:
        """Read a block of parameters, whether or not a node reads it; None where the configuration has none."""
        return block_of(self.catalog, kind)

    def read_block(self, kind: type[BlockT]) -> BlockT | None:
        """Read a block of parameters that a node reads.

        Args:
            kind: Its type.

        Returns:
            The block, or None where no node reads it.
        """
        return self.block(kind) if f"{PARAMETER}{NAMES[kind]}" in self.inputs else None

    @cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """Classes of the network on disk where that is read, else of the training images; None without either."""
        if "network_weights" in self.from_disk:
            return tuple(self.catalog.load("network_weights").spec.class_names)
        return tuple(self.catalog.load("train_images").class_names) if "train_images" in self.inputs else None

    @cached_property
    def target(self) -> TargetNetwork:
        """The network under attack: the one on disk where that is read, else one as configured, not yet trained."""
        if "network_weights" in self.from_disk:
            found: TargetNetwork = self.catalog.load("network_weights")
            return found
        images = self.catalog.load("train_images")
        training = self.block(TargetTrainingParams) or TargetTrainingParams()
        return build_target(
            self.block(NetworkParams) or NetworkParams(),
            class_names=images.class_names,
            image_shape=shape_of(images),
            strict_head=not training.head_only,
        )

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers read: of the network on disk where that is read, else as configured; empty if unknown."""
        if "network_weights" in self.from_disk:
            return tuple(self.catalog.load("network_weights").spec.layers)
        network = self.block(NetworkParams)
        if network is None:
            return ()
        if network.layers is None:
            return default_layers(network.name) if network.name in REGISTRY else ()
        return tuple(one if isinstance(one, str) else one.name for one in network.layers)


def block_of(catalog: DataCatalog, kind: type[BlockT]) -> BlockT | None:
    """Read a block of parameters.

    Args:
        catalog: Datasets and parameters.
        kind: Type of the block.

    Returns:
        The block, or None where the configuration has none.
    """
    key = f"{PARAMETER}{NAMES[kind]}"
    if key not in catalog:
        return None
    value: Any = catalog.load(key)
    return value if isinstance(value, kind) else kind.model_validate(value)


def some_of(names: list[str]) -> str:
    """Write the first of some names, and how many more there are."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more or "none"
