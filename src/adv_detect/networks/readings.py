"""Readings of the outputs of layers: the facts, the log of them, and unreadable layers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from adv_detect.errors import ConfigurationError
from adv_detect.fields import Block
from adv_detect.networks.outputs import describe

LOGGER = logging.getLogger(__name__)
FEWEST_DIMENSIONS, MOST_DIMENSIONS = 2, 4
Evidence = Literal["vector", "input size", "kind of module", "only long axis", "tokens", "configuration"]


class LayerReading(Block):
    """Reduction of the output of a layer to one vector per image.

    Attributes:
        name: Name of the layer.
        channels: Axis of the channels; all others but the first are averaged away.
        width: Size of that axis, the feature width D.
        shape: Shape of the output for one image of the size of the data.
        position: Place of the layer among those read, in the order in which the network runs them, from 0.
        found_by: What tells that this is the axis.
    """

    name: str
    channels: int
    width: int
    shape: tuple[int, ...]
    position: int
    found_by: Evidence


def log_readings(readings: Sequence[LayerReading]) -> None:
    """Say how layers are read, and warn where they are named in another order than the network runs them in."""
    for one in readings:
        shape = ", ".join(map(str, one.shape[1:]))
        LOGGER.info(
            "layer %s gives (N, %s): channels on axis %d (by %s), width %d",
            one.name, shape, one.channels, one.found_by, one.width,
        )  # fmt: skip
    positions = [one.position for one in readings]
    if positions != sorted(positions):
        ran = [one.name for one in sorted(readings, key=lambda one: one.position)]
        LOGGER.warning(
            "network.layers: the layers are not in the order in which the network runs them, which is [%s]; "
            "trajectories keep the order asked for, [%s]", ", ".join(ran), ", ".join(one.name for one in readings),
        )  # fmt: skip


def check_activation(output: object, name: str) -> tuple[int, ...]:
    """Check that the output of a layer can be read; return its shape.

    Args:
        output: What the layer gave.
        name: Name of the layer, for the error.

    Raises:
        ConfigurationError: It is no tensor with 2, 3 or 4 dimensions.
    """
    if isinstance(output, Tensor) and FEWEST_DIMENSIONS <= output.dim() <= MOST_DIMENSIONS:
        return tuple(output.shape)
    raise ConfigurationError(
        f"layers: expected a tensor of 2, 3 or 4 dimensions from layer {name!r}, got {describe(output)}; "
        "read the output of another module"
    )


def check_rows(shape: Sequence[int], images: int, name: str) -> None:
    """Check that a layer gives one row per image.

    Raises:
        ConfigurationError: The first axis has another length than the images.
    """
    if shape[0] != images:
        raise ConfigurationError(
            f"layers: expected one entry per image on the first axis of layer {name!r}, got shape {tuple(shape)} for "
            f"{images} images; read the output of another module"
        )


def repeated_layer(name: str) -> ConfigurationError:
    """Make the error for a layer that is run twice in one forward pass."""
    return ConfigurationError(
        f"layers: layer {name!r} is run more than once in a forward pass, so its output is ambiguous; "
        "name a module that is run once"
    )


def silent_layers(names: Sequence[str]) -> ConfigurationError:
    """Make the error for layers that a forward pass leaves out."""
    return ConfigurationError(f"layers: {list(names)} take no part in the network's forward pass; leave them out")
