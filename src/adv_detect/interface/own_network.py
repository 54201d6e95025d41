"""A network that a user gives, described as the pipelines describe theirs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adv_detect.algorithms.detectors import Activations
from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.errors import DataError
from adv_detect.networks.frozen import working_form
from adv_detect.networks.spec import NetworkSpec
from adv_detect.networks.target import TargetNetwork, check_layers, target_readings
from adv_detect.serving.bundle import check_images
from adv_detect.serving.passes import chunked


def describe_network(
    model: nn.Module,
    pixels: Tensor,
    *,
    layers: Sequence[str],
    class_names: Sequence[str] | None,
    bounds: tuple[float, float],
    output: str | int | None,
    constructor: str | None,
    arguments: Mapping[str, Any] | None,
) -> TargetNetwork:
    """Copy a network and find out what the pipelines would know of it.

    Args:
        model: The network, its preprocessing inside; it stays as it is.
        pixels: Images ``(N, channels, H, W)`` within the bounds, at least one.
        layers: Names of the modules that are read.
        class_names: Name of each class; None for their numbers.
        bounds: Lowest and highest pixel value.
        output: Which output the logits are, where there are several.
        constructor: Dotted path of what builds the network.
        arguments: Its arguments.

    Returns:
        The network, frozen, on the CPU.

    Raises:
        ConfigurationError: A layer does not exist or cannot be read.
        DataError: Images or class names do not fit the network.
    """
    network = copy.deepcopy(model).cpu().eval()
    kind = type(model)
    spec = NetworkSpec(
        name=constructor or f"{kind.__module__}.{kind.__qualname__}",
        arguments=dict(arguments or {}),
        num_classes=1,
        layers=tuple(layers),
        output=output,
        bounds=bounds,
        class_names=("",),
        image_shape=tuple(pixels.shape[1:]),
    )
    target = TargetNetwork(spec, network).freeze()
    check_layers(target, layers)
    with torch.no_grad():
        count = int(target(pixels[:1]).shape[1])
    names = tuple(class_names or map(str, range(count)))
    if len(names) != count:
        raise DataError(f"class_names: expected {count}, one per logit of the network, got {len(names)}")
    target = target.with_spec(num_classes=count, class_names=names)
    check_images(pixels[:1].numpy(), target.spec)
    return target.with_spec(readings=target_readings(target, layers))


def activation_reader(
    target: TargetNetwork, twin: TargetNetwork | None, device: torch.device
) -> Callable[[Tensor], Activations]:
    """Give what runs images through a network, chunk by chunk.

    Args:
        target: The network.
        twin: The second network, where it is read.
        device: Where to compute.

    Returns:
        Images ``(N, channels, H, W)`` to activations on the CPU.
    """
    network = working_form(target, device)
    second = None if twin is None else working_form(twin, device)

    @torch.no_grad()
    def read(images: Tensor) -> Activations:
        return Activations.concatenate(
            network_activations(network, part, target.spec.layers, twin=second).to("cpu")
            for part in chunked(images, device)
        )

    return read
