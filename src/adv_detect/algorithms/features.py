"""Reads class logits and the activations of chosen layers in one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from adv_detect.errors import ConfigurationError
from adv_detect.networks.capture import read_modules
from adv_detect.networks.channels import find_readings
from adv_detect.networks.outputs import HALF, call_network, describe, in_format_of
from adv_detect.networks.readings import check_activation, check_rows, repeated_layer, silent_layers
from adv_detect.networks.target import TargetNetwork, check_layers, inner_network, target_readings

_Axes = dict[tuple[object, ...], int]
_FOUND: WeakKeyDictionary[nn.Module, _Axes] = WeakKeyDictionary()
"""Channel axes of layers of networks whose description does not state them."""


def extract_features(network: nn.Module, images: Tensor, layers: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
    """Run the network once; return its logits and one feature vector per image and layer.

    An activation is averaged over all axes but those of the images and of the channels: ``(N, D, H, W)`` and
    ``(N, H, W, D)`` over height and width (global average pooling), tokens ``(N, T, D)`` over the tokens; ``(N, D)`` is
    taken as it is. Which axis holds the channels is stated in the spec of a ``TargetNetwork``; for another module it is
    found at the first call, as in :func:`adv_detect.networks.channels.find_readings`. Gradients flow to the images
    where autograd records; the mode of the network (training or evaluation) is left as it is. Safe in threads.

    Args:
        network: The network under attack; with a ``TargetNetwork`` the names are those of its inner network.
        images: Shape ``(N, channels, H, W)``, in the pixel range of the network; cast to the network's number format.
        layers: Names of the modules whose output is read.

    Returns:
        Class logits ``(N, C)``, and L features ``(N, D_l)`` in the order of ``layers``; float64 where images and
        network are, else float32.

    Raises:
        ConfigurationError: A layer does not exist, is named twice, is not run exactly once, gives something other than
            a tensor with 2, 3 or 4 dimensions and an entry per image, or has channels on an axis that cannot be told;
            or the network gives no logits.
    """
    axes = channel_axes(network, layers, images.shape[1:])
    with capture_activations(network, layers, channels=axes) as activations:
        logits = network_logits(network, images)
    silent = [name for name in layers if name not in activations]
    if silent:
        raise silent_layers(silent)
    for name in layers:
        check_rows(activations[name].shape, len(images), name)
    return logits, [in_format_of(activations[name], images) for name in layers]


def network_logits(network: nn.Module, images: Tensor) -> Tensor:
    """Run the network once and read no layer.

    Args:
        network: The network under attack.
        images: Shape ``(N, channels, H, W)``, in its pixel range.

    Returns:
        Class logits ``(N, C)``.

    Raises:
        ConfigurationError: The network gives no logits.
    """
    logits = network(images) if isinstance(network, TargetNetwork) else call_network(network, images)
    if logits.dim() != 2:
        raise ConfigurationError(f"network: expected logits of shape (N, C) from the network, got {describe(logits)}")
    return logits


@contextmanager
def capture_activations(
    network: nn.Module, layers: Sequence[str], *, channels: Mapping[str, int] | None = None
) -> Iterator[dict[str, Tensor]]:
    """Collect pooled activations of one forward pass that is run inside the context.

    Pooling happens in the hook: full activations are not kept alive, and an in-place operation that follows
    (as in ``relu(inplace=True)``) cannot change what was read. Passes of other threads are not seen, contexts may be
    nested, and no hook is left behind, also after an error.

    Args:
        network: As in :func:`extract_features`.
        layers: As in :func:`extract_features`.
        channels: Axis of the channels by layer name, as from :func:`channel_axes`; None takes those that the spec of a
            ``TargetNetwork`` states.

    Yields:
        A dictionary, empty until the forward pass, then pooled activation ``(N, D_l)`` by layer name.

    Raises:
        ConfigurationError: As in :func:`extract_features`; or the axis of a layer is not given.
    """
    inner = inner_network(network)
    if isinstance(inner, nn.DataParallel) and len(inner.device_ids) > 1:
        raise ConfigurationError(
            "network: layers cannot be read from copies on several devices; give the network inside (network.module)"
        )
    modules = _find(inner, layers)
    axes = _stated_axes(network) if channels is None else channels
    unknown = [name for name in layers if name not in axes]
    if unknown:
        raise ConfigurationError(f"channels: expected an axis for each layer, none is known for {unknown}")
    pooled: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        if name in pooled:
            raise repeated_layer(name)
        pooled[name] = pool_activation(output, name, channels=axes[name])

    with read_modules(modules, keep):
        yield pooled


def channel_axes(network: nn.Module, layers: Sequence[str], image_shape: Sequence[int]) -> dict[str, int]:
    """Tell on which axis each layer has its channels.

    Args:
        network: As in :func:`extract_features`.
        layers: As in :func:`extract_features`.
        image_shape: Channels, height and width of the images.

    Returns:
        Axis by layer name, counted from that of the images, 0.

    Raises:
        ConfigurationError: As in :func:`extract_features`.
    """
    axes = _stated_axes(network)
    missing = [name for name in layers if name not in axes]
    if not missing:
        return axes
    found = _FOUND.setdefault(network, {})
    modules = _find(inner_network(network), layers)
    keys = {name: (name, id(modules[name]), *image_shape) for name in missing}
    if not found.keys() >= set(keys.values()):
        for name, axis in _find_axes(network, missing, image_shape).items():
            found[keys[name]] = axis
    return axes | {name: found[keys[name]] for name in missing}


def _stated_axes(network: nn.Module) -> dict[str, int]:
    if not isinstance(network, TargetNetwork):
        return {}
    return {one.name: one.channels for one in network.spec.readings}


def _find_axes(network: nn.Module, layers: Sequence[str], image_shape: Sequence[int]) -> dict[str, int]:
    if isinstance(network, TargetNetwork):
        readings = target_readings(network, layers)
    else:
        readings = find_readings(network, {name: name for name in layers}, image_shape, forward=call_network)
    return {one.name: one.channels for one in readings}


def _find(network: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    """Modules by name; the full check, which lists all modules, is left for when a name is wrong."""
    try:
        modules = {name: network.get_submodule(name) for name in layers if name}
    except AttributeError:
        modules = {}
    if not modules or len(modules) != len(layers):
        check_layers(network, layers)
    return modules


def pool_activation(activation: object, name: str, *, channels: int) -> Tensor:
    """Average the output of a layer to one vector per image.

    Args:
        activation: Tensor of 2, 3 or 4 dimensions, the images on axis 0.
        name: Name of the layer, for the error.
        channels: The axis that is kept beside that of the images.

    Returns:
        Shape ``(N, D)``; half-precision activations are averaged and returned in float32.

    Raises:
        ConfigurationError: The activation is no tensor of such a shape.
    """
    dimensions = len(check_activation(activation, name))
    assert isinstance(activation, Tensor)
    if channels >= dimensions:
        raise ConfigurationError(
            f"layers: expected channels on axis {channels} of layer {name!r}, got {describe(activation)}"
        )
    axes = tuple(axis for axis in range(1, dimensions) if axis != channels)
    if activation.dtype in HALF:
        activation = activation.to(torch.float32)
    return activation.mean(dim=axes) if axes else activation
