"""Building of a twin: a second network for the task of the network under attack."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal

from adv_detect.errors import ConfigurationError, DataError
from adv_detect.networks.registry import REGISTRY, build_network
from adv_detect.networks.spec import NetworkSpec
from adv_detect.networks.target import TargetNetwork, build_target
from adv_detect.networks.weights import head_name, load_weights
from adv_detect.params import SAME, NetworkParams, TwinNetworkParams

TASK = ("class_names", "image_shape", "bounds")
"""Facts in which a twin equals the network under attack."""
OWN_SHAPE = "strided"
"""The registered network that takes channels and size from the images, unless they are stated."""


def build_twin(
    target: TargetNetwork, params: TwinNetworkParams, *, head: Literal["softmax", "one_vs_all"], seed: int
) -> TargetNetwork:
    """Build a twin that has learned nothing but what its checkpoint, or the network that it copies, holds.

    Args:
        target: The network under attack, which says classes, image shape and pixel range.
        params: The architecture.
        head: Meaning of its logits.
        seed: Seed of the initial weights.

    Returns:
        The twin, in training mode, with gradients.

    Raises:
        ConfigurationError: Name, arguments or checkpoint do not fit together or the images.
    """
    if params.name == SAME:
        twin = copy.deepcopy(target)
        if params.checkpoint is not None:
            load_weights(twin.network, _existing(params.checkpoint), strict_head=True)
    else:
        twin = _other(target.spec, params, seed)
    twin.spec = twin.spec.model_copy(update={"head": head, "accuracy": None, "history": ()})
    return twin.train().requires_grad_(True)


def check_twin(twin: TargetNetwork, target: TargetNetwork) -> None:
    """Check that a twin is for the task of a network.

    Args:
        twin: The twin.
        target: The network under attack.

    Raises:
        DataError: Classes, image shape or pixel range differ.
    """
    for name in TASK:
        wanted, found = getattr(target.spec, name), getattr(twin.spec, name)
        if wanted != found:
            raise DataError(
                f"twin: expected the {name} of the network under attack, {_some(wanted)}, got {_some(found)}; run the "
                "pipeline twin_training"
            )


def _other(spec: NetworkSpec, params: TwinNetworkParams, seed: int) -> TargetNetwork:
    arguments = dict(params.arguments)
    if params.name == OWN_SHAPE:
        channels, *size = spec.image_shape
        arguments = {"in_channels": channels, "image_shape": size} | arguments
    layers = None if params.name in REGISTRY else _last_layer(params.name, arguments, spec.num_classes)
    configured = NetworkParams(
        name=params.name,
        arguments=arguments,
        checkpoint=params.checkpoint,
        layers=layers,
        output=params.output,
        bounds=spec.bounds,
        preprocessing=params.preprocessing or spec.preprocessing,
    )
    try:
        return build_target(configured, class_names=spec.class_names, image_shape=spec.image_shape, seed=seed)
    except ConfigurationError as exc:  # its keys are those of the network under attack
        raise ConfigurationError(f"twin_training.{exc}") from exc


def _last_layer(name: str, arguments: dict[str, object], classes: int) -> tuple[str, ...] | None:
    """Name a layer that can be read: no detector reads those of a twin, but a network states one."""
    network = build_network(name, num_classes=classes, **arguments)
    if isinstance(getattr(network, "default_layers", None), tuple):
        return None
    found = head_name(network)
    return None if found is None else (found,)


def _existing(checkpoint: str) -> str:
    if not Path(checkpoint).is_file():
        raise ConfigurationError(
            f"twin_training.network.checkpoint: expected an existing weight file, or null, got {checkpoint!r}"
        )
    return checkpoint


def _some(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
