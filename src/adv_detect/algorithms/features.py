"""Reads class logits and the activations of chosen layers in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adv_detect.errors import ConfigurationError
from adv_detect.networks.target import check_layers, inner_network

POOLED_AXES: dict[int, tuple[int, ...]] = {2: (), 3: (1,), 4: (2, 3)}
"""Axes averaged away per number of dimensions: none of a vector, the tokens, height and width."""


def extract_features(network: nn.Module, images: Tensor, layers: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
    """Run the network once; return its logits and one feature vector per image and layer.

    An activation ``(N, D, H, W)`` is averaged over height and width (global average pooling), one of tokens
    ``(N, T, D)`` over the tokens, ``(N, D)`` is taken as it is. Gradients flow to the images where autograd
    records; the mode of the network (training or evaluation) is left as it is.

    Args:
        network: The network under attack; with a ``TargetNetwork`` the names are those of its inner network.
        images: Shape ``(N, channels, H, W)``, in the pixel range of the network.
        layers: Names of the modules whose output is read.

    Returns:
        Class logits ``(N, C)``, and L features ``(N, D_l)`` in the order of ``layers``.

    Raises:
        ConfigurationError: A layer does not exist, is named twice, is not run exactly once, or gives something
            other than a tensor with 2, 3 or 4 dimensions; or the network gives no logits.
    """
    with capture_activations(network, layers) as activations:
        logits = network(images)
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise ConfigurationError(f"network: expected logits of shape (N, C) from the network, got {_describe(logits)}")
    silent = [name for name in layers if name not in activations]
    if silent:
        raise ConfigurationError(f"layers: {silent} take no part in the network's forward pass; leave them out")
    return logits, [activations[name] for name in layers]


@contextmanager
def capture_activations(network: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect pooled activations of one forward pass that is run inside the context.

    Pooling happens in the hook: full activations are not kept alive, and an in-place operation that follows
    (as in ``relu(inplace=True)``) cannot change what was read. The hooks are removed on leaving, also after an error.

    Args:
        network: As in :func:`extract_features`.
        layers: As in :func:`extract_features`.

    Yields:
        A dictionary, empty until the forward pass, then pooled activation ``(N, D_l)`` by layer name.

    Raises:
        ConfigurationError: As in :func:`extract_features`.
    """
    modules = _find(inner_network(network), layers)
    pooled: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, module in modules.items():
            handle = module.register_forward_hook(_keep_in(pooled, name))
            stack.callback(handle.remove)
        yield pooled


def _find(network: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    """Modules by name; the full check, which lists all modules, is left for when a name is wrong."""
    try:
        modules = {name: network.get_submodule(name) for name in layers if name}
    except AttributeError:
        modules = {}
    if not modules or len(modules) != len(layers):
        check_layers(network, layers)
    return modules


def pool_activation(activation: object, name: str) -> Tensor:
    """Average the output of a layer to one vector per image.

    Args:
        activation: Tensor ``(N, D, H, W)``, ``(N, T, D)`` or ``(N, D)``.
        name: Name of the layer, for the error.

    Returns:
        Shape ``(N, D)``; half-precision activations are averaged and returned in float32.

    Raises:
        ConfigurationError: The activation is no tensor of such a shape.
    """
    if not isinstance(activation, Tensor) or activation.dim() not in POOLED_AXES:
        raise ConfigurationError(
            f"layers: expected a tensor of 2, 3 or 4 dimensions from layer {name!r}, got {_describe(activation)}; "
            "read the output of another module"
        )
    axes = POOLED_AXES[activation.dim()]
    if activation.dtype in (torch.float16, torch.bfloat16):
        activation = activation.float()
    return activation.mean(dim=axes) if axes else activation


def _keep_in(pooled: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Any], None]:
    """Make the forward hook that stores the pooled output of one layer."""

    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        if name in pooled:
            raise ConfigurationError(
                f"layers: layer {name!r} is run more than once in a forward pass, so its output is ambiguous; "
                "name a module that is run once"
            )
        pooled[name] = pool_activation(output, name)

    return hook


def _describe(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
