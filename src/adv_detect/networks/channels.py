"""The axis of the channels in the output of each layer read.

It is found by running the network on grey images of two sizes: channels are what stays. Where a network takes one size
only, or pools to a fixed one, the kind of the modules that gave the output tells; where that does not tell either,
tokens ``(N, T, D)`` have their channels last and anything else has to be stated.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from adv_detect.errors import ConfigurationError
from adv_detect.networks.capture import drop_reading_hooks, hooks_at_rest, read_modules, unread
from adv_detect.networks.module_kinds import Outputs, channels_by_kind
from adv_detect.networks.readings import (
    FEWEST_DIMENSIONS,
    Evidence,
    LayerReading,
    check_activation,
    check_rows,
    repeated_layer,
    silent_layers,
)

LOGGER = logging.getLogger(__name__)
PROBES = 2
"""Images of the first probe; the others have one more, so that the axis of the images shows itself."""
MORE_PIXELS = 32
"""By which height and width grow in the second probe: one more position after a stride of 32."""
TOKENS = 3
"""Dimensions of an output of tokens ``(N, T, D)``."""

Forward = Callable[[nn.Module, Tensor], object]


@dataclass
class _Layer:
    """Shape of one layer's output at the size of the data, and the axes that may be the channels."""

    name: str
    shape: tuple[int, ...]
    position: int
    candidates: tuple[int, ...]
    changed: bool = False
    channels: int | None = None
    found_by: Evidence = "input size"

    def settle(self, channels: int, found_by: Evidence) -> None:
        self.channels, self.found_by = channels, found_by


@dataclass
class _Shapes:
    """Collects shapes of layers, in the order in which they are run."""

    seen: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def receive(self, name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        if name in self.seen:
            raise repeated_layer(name)
        self.seen[name] = check_activation(output, name)


def find_readings(
    network: nn.Module,
    modules: Mapping[str, str],
    image_shape: Sequence[int],
    *,
    forward: Forward,
    grey: float = 0.0,
    stated: Mapping[str, int] | None = None,
) -> tuple[LayerReading, ...]:
    """Find out how each layer is read; the network is left as it is.

    Args:
        network: A network in any mode; copies of it are run.
        modules: For each layer the full name of its module in ``network``.
        image_shape: Channels, height and width of the images.
        forward: Runs a network on images.
        grey: Value of the pixels of the probes.
        stated: Channel axis of layers for which it is configured; negative ones count from the end.

    Returns:
        A reading per layer, in the order of ``modules``.

    Raises:
        ConfigurationError: A layer is not run exactly once, gives no tensor of 2 to 4 dimensions with an entry per
            image, or its channel axis cannot be told or is stated wrongly.
    """
    probe = _Probe(_copy(network), modules, tuple(image_shape), forward, grey)
    layers = _first_look(probe)
    for layer in layers:
        _settle_without_probing(layer, (stated or {}).get(layer.name))
    for shape in _other_shapes(image_shape):
        if _open(layers):
            _compare_sizes(_open(layers), probe.shapes_at(shape))
    if _open(layers):
        _ask_modules(_open(layers), probe)
    for layer in _open(layers):
        _take_the_rest(layer)
    return tuple(_reading(layer) for layer in layers)


@dataclass(frozen=True)
class _Probe:
    """Runs a copy of the network on grey images."""

    network: nn.Module
    modules: Mapping[str, str]
    image_shape: tuple[int, ...]
    forward: Forward
    grey: float

    def shapes_at(self, image_shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Shapes of the layers that are run before the network fails on images of this size, if it does."""
        collected = _Shapes()
        try:
            self.run(collected, PROBES + 1, image_shape)
        except Exception as exc:  # any error: the forward pass of a network is arbitrary code
            LOGGER.debug("the network does not take images of %s: %s", tuple(image_shape), exc)
        return {name: shape for name, shape in collected.seen.items() if shape[0] == PROBES + 1}

    @torch.no_grad()
    def run(self, collected: _Shapes | Outputs, count: int, image_shape: Sequence[int]) -> None:
        device = next((one.device for one in self.network.parameters()), torch.device("cpu"))
        images = torch.full((count, *image_shape), self.grey, device=device)
        named = {name: self.network.get_submodule(full) for name, full in self.modules.items()}
        wanted = collected.modules(self.network) if isinstance(collected, Outputs) else named
        with unread(), read_modules(wanted, collected.receive), torch.random.fork_rng(devices=[]):
            self.forward(self.network, images)


def _copy(network: nn.Module) -> nn.Module:
    """Copy a network for probing: others may use it meanwhile, and it may keep things from one pass to the next."""
    with hooks_at_rest():
        try:
            return drop_reading_hooks(copy.deepcopy(network)).eval()
        except Exception as exc:
            if network.training:
                raise ConfigurationError(
                    f"network: it cannot be copied, which finding the channels of its layers takes ({exc}); state "
                    "channels for each of network.layers"
                ) from exc
            return network


def _first_look(probe: _Probe) -> list[_Layer]:
    """Run the network at the size of the data."""
    collected = _Shapes()
    probe.run(collected, PROBES, probe.image_shape)
    missing = [name for name in probe.modules if name not in collected.seen]
    if missing:
        raise silent_layers(missing)
    order = list(collected.seen)
    layers = []
    for name in probe.modules:
        shape = collected.seen[name]
        check_rows(shape, PROBES, name)
        layers.append(_Layer(name, shape, order.index(name), tuple(range(1, len(shape)))))
    return layers


def _settle_without_probing(layer: _Layer, stated: int | None) -> None:
    dimensions = len(layer.shape)
    if stated is not None:
        axis = stated + dimensions if stated < 0 else stated
        if not 1 <= axis < dimensions:
            raise ConfigurationError(
                f"network.layers: expected channels of layer {layer.name!r} to be an axis of its output, which has "
                f"shape {_shown(layer.shape)} (the first axis is that of the images), got {stated}"
            )
        layer.settle(axis, "configuration")
    elif dimensions == FEWEST_DIMENSIONS:
        layer.settle(1, "vector")


def _other_shapes(image_shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Larger images, where they have height and width: a little, then twice as large, for networks of patches."""
    if len(image_shape) == 3:
        channels, height, width = image_shape
        yield channels, height + MORE_PIXELS, width + MORE_PIXELS
        yield channels, 2 * height, 2 * width


def _compare_sizes(layers: Sequence[_Layer], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Keep the axes whose length is the same at another size of the images."""
    for layer in layers:
        other = shapes.get(layer.name)
        if other is None or len(other) != len(layer.shape):
            continue
        same = tuple(axis for axis in layer.candidates if other[axis] == layer.shape[axis])
        layer.changed = layer.changed or len(same) < len(layer.candidates)
        layer.candidates = same
        if not same:
            raise _ambiguous(layer)
        wide = [axis for axis in same if layer.shape[axis] > 1]
        if len(wide) == 1:
            layer.settle(wide[0], "input size")
        elif layer.changed and len(same) == 1:
            layer.settle(same[0], "input size")


def _ask_modules(layers: Sequence[_Layer], probe: _Probe) -> None:
    """Look at which kinds of modules gave the outputs, in a pass at the size of the data."""
    outputs = Outputs()
    probe.run(outputs, PROBES, probe.image_shape)
    for layer in layers:
        axis = channels_by_kind(outputs, probe.modules[layer.name])
        if axis in layer.candidates:
            layer.settle(axis, "kind of module")


def _take_the_rest(layer: _Layer) -> None:
    """Take the only axis that is longer than one, or the last one of ``(N, T, D)`` where nothing speaks against it."""
    wide = [axis for axis in layer.candidates if layer.shape[axis] > 1]
    if len(wide) == 1:
        layer.settle(wide[0], "only long axis")
        return
    last = len(layer.shape) - 1
    if len(layer.shape) != TOKENS or last not in layer.candidates:
        raise _ambiguous(layer)
    layer.settle(last, "tokens")


def _reading(layer: _Layer) -> LayerReading:
    assert layer.channels is not None
    return LayerReading(
        name=layer.name,
        channels=layer.channels,
        width=layer.shape[layer.channels],
        shape=(1, *layer.shape[1:]),
        position=layer.position,
        found_by=layer.found_by,
    )


def _open(layers: Sequence[_Layer]) -> list[_Layer]:
    return [layer for layer in layers if layer.channels is None]


def _ambiguous(layer: _Layer) -> ConfigurationError:
    return ConfigurationError(
        f"network.layers: cannot tell which axis of layer {layer.name!r} holds its channels, its output has shape "
        f"{_shown(layer.shape)}; state it, as in layers: [{{name: {layer.name}, channels: -1}}]"
    )


def _shown(shape: Sequence[int]) -> str:
    return f"(N, {', '.join(map(str, shape[1:]))})"
