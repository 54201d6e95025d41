"""The network under attack: a network with its preprocessing and the facts needed to use it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from adv_detect.errors import CheckpointError, ConfigurationError
from adv_detect.networks.channels import find_readings
from adv_detect.networks.finite import check_finite
from adv_detect.networks.outputs import call_network, in_format_of
from adv_detect.networks.preprocessing import Preprocessing, check_channels
from adv_detect.networks.readings import LayerReading
from adv_detect.networks.registry import build_network, default_layers, network_source
from adv_detect.networks.spec import NetworkSpec
from adv_detect.networks.trial import try_network
from adv_detect.networks.weights import load_weights
from adv_detect.params import LayerParams, NetworkParams
from adv_detect.pictures import Transform
from adv_detect.sharding.digests import tensors_digest


class TargetNetwork(nn.Module):
    """Preprocessing and network in one.

    Attributes:
        spec: Description of the network.
        preprocessing: Map from images within ``spec.bounds`` to inputs of the network.
        network: The inner network, from which features are read.
    """

    def __init__(self, spec: NetworkSpec, network: nn.Module) -> None:
        """Join a network and the preprocessing of its spec."""
        super().__init__()
        self.spec = spec
        self.preprocessing = Preprocessing(spec.preprocessing)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Classify images ``(N, channels, H, W)`` within ``spec.bounds``; return logits ``(N, C)``.

        Images of any number format are taken, whatever the network computes in; the logits are float64 where both are,
        else float32.
        """
        return in_format_of(call_network(self.network, self.preprocessing(images), output=self.spec.output), images)

    def with_spec(self, **changes: Any) -> TargetNetwork:
        """Return a network of the same weights whose spec says something else, such as a measured accuracy."""
        return TargetNetwork(self.spec.model_copy(update=changes), self.network).train(self.training)

    def freeze(self) -> Self:
        """Put the network into evaluation mode without parameter gradients; return itself."""
        self.eval()
        self.requires_grad_(False)
        return self


def build_target(
    params: NetworkParams,
    *,
    class_names: Iterable[str],
    image_shape: tuple[int, int, int],
    seed: int = 0,
    strict_head: bool = True,
    pictures: Transform | None = None,
) -> TargetNetwork:
    """Build the network under attack and load its checkpoint, if one is configured.

    Args:
        params: The configured network.
        class_names: Name of each class of the data.
        image_shape: Channels, height and width of the images.
        seed: Seed of the initial weights; the global random state is not touched.
        strict_head: Whether the checkpoint must hold a head for exactly these classes; False keeps a freshly
            initialised head where it does not.
        pictures: How a picture file becomes one of these images, where the data say so.

    Returns:
        The network, in training mode.

    Raises:
        ConfigurationError: When name, arguments, layers or preprocessing do not fit together or the images, the
            checkpoint file does not exist, the network does not give one logit per class, or the channel axis of a
            layer cannot be told.
        CheckpointError: When the checkpoint does not fit the network.
    """
    names = tuple(class_names)
    check_channels(params.preprocessing, image_shape[0])
    network = _seeded_network(params.name, params.arguments, num_classes=len(names), seed=seed)
    layers, stated = _configured_layers(params, network)
    check_layers(network, layers)
    _load_checkpoint(network, params.checkpoint, strict_head=strict_head)
    spec = NetworkSpec(
        name=params.name,
        arguments=params.arguments,
        num_classes=len(names),
        layers=layers,
        output=params.output,
        bounds=params.bounds,
        preprocessing=params.preprocessing,
        class_names=names,
        image_shape=image_shape,
        pictures=pictures,
    )
    target = TargetNetwork(spec, network)
    try_network(target)
    return _with_readings(target, stated)


def target_tensors(target: TargetNetwork) -> dict[str, Tensor]:
    """Copy the tensors of the inner network.

    Args:
        target: The network under attack.

    Returns:
        Tensor by the inner network's own name, contiguous, on the CPU; ``load_weights`` reads them when stored.
    """
    state = target.network.state_dict()
    return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def target_from_spec(spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> TargetNetwork:
    """Build a network under attack from what ``target_tensors`` and its spec hold.

    Args:
        spec: Description of the network.
        tensors: Tensor by the inner network's own name.

    Returns:
        The network, in training mode, on the CPU.

    Raises:
        CheckpointError: When the tensors do not fit the network of the spec, or are not finite.
        ConfigurationError: When the spec does not say how its layers are read and it cannot be told.
    """
    network = _seeded_network(spec.name, spec.arguments, num_classes=spec.num_classes, seed=0)
    check_finite(network, tensors, "stored network")
    try:
        network.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as exc:
        raise CheckpointError(f"the stored tensors do not fit network {spec.name!r} of its spec: {exc}") from exc
    check_layers(network, spec.layers)
    target = TargetNetwork(spec, network)
    read = {one.name for one in spec.readings}
    return target if read.issuperset(spec.layers) else _with_readings(target, {})


def target_digest(target: TargetNetwork, *, layers: bool = True) -> str:
    """Fingerprint a network under attack.

    Args:
        target: The network.
        layers: Whether the layers that are read count; attacks on the class are the same whatever is read.

    Returns:
        SHA-256, in hexadecimal, of the spec without its measurements and without the way of picture files to it, of the
        network's source code, and of all tensors of the inner network.
    """
    apart = {"accuracy", "history", "pictures"} | (set() if layers else {"layers", "readings"})
    spec = target.spec.model_dump(mode="json", exclude=apart)
    spec["source"] = network_source(target.spec.name)
    return tensors_digest(target_tensors(target), spec)


def inner_network(module: nn.Module) -> nn.Module:
    """Return the network inside a target network, or the module itself when it is none."""
    return module.network if isinstance(module, TargetNetwork) else module


def check_layers(network: nn.Module, layers: Iterable[str]) -> None:
    """Check that layers exist.

    Args:
        network: A network, or a target network, whose inner network is looked at.
        layers: Module names.

    Raises:
        ConfigurationError: When there are none, one is named twice, or one does not exist; the message then lists the
            valid names, close matches first.
    """
    wanted = list(layers)
    if not wanted or len(set(wanted)) != len(wanted):
        raise ConfigurationError(f"network.layers: expected at least one module name, each once, got {wanted}")
    valid = [name for name, _ in inner_network(network).named_modules() if name]
    for name in wanted:
        if name not in valid:
            close = difflib.get_close_matches(name, valid, n=5)
            ordered = [*close, *(entry for entry in valid if entry not in close)]
            raise ConfigurationError(f"network.layers: no module {name!r}; expected of [{', '.join(ordered)}]")


def _seeded_network(name: str, arguments: Mapping[str, Any], *, num_classes: int, seed: int) -> nn.Module:
    if "num_classes" in arguments:
        raise ConfigurationError(
            f"network.arguments: num_classes comes from the data ({num_classes} classes), got "
            f"{arguments['num_classes']}; remove it"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build_network(name, num_classes=num_classes, **arguments)


def _configured_layers(params: NetworkParams, network: nn.Module) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names of the layers read, and the channel axes that are stated."""
    if params.layers is None:
        return _own_layers(params.name, network), {}
    entries = [LayerParams(name=entry) if isinstance(entry, str) else entry for entry in params.layers]
    stated = {entry.name: entry.channels for entry in entries if entry.channels is not None}
    return tuple(entry.name for entry in entries), stated


def _with_readings(target: TargetNetwork, stated: Mapping[str, int]) -> TargetNetwork:
    """Find out how the layers of a network are read, and note it in its spec."""
    target.spec = target.spec.model_copy(
        update={"readings": target_readings(target, target.spec.layers, stated=stated)}
    )
    return target


def target_readings(
    target: TargetNetwork, layers: Iterable[str], *, stated: Mapping[str, int] | None = None
) -> tuple[LayerReading, ...]:
    """Find out how layers of a target network are read.

    Args:
        target: The network under attack.
        layers: Names of modules of its inner network.
        stated: Channel axis of layers where it is stated.

    Returns:
        A reading per layer.

    Raises:
        ConfigurationError: A layer cannot be read.
    """
    return find_readings(
        target,
        {name: f"network.{name}" for name in layers},
        target.spec.image_shape,
        forward=lambda network, images: network(images),
        grey=sum(target.spec.bounds) / 2,
        stated=stated,
    )


def _own_layers(name: str, network: nn.Module) -> tuple[str, ...]:
    """Return the layers that this instance states (they depend on its depth), else the registered ones."""
    stated = getattr(network, "default_layers", None)
    return stated if isinstance(stated, tuple) else default_layers(name)


def _load_checkpoint(network: nn.Module, checkpoint: str | None, *, strict_head: bool) -> None:
    if checkpoint is None:
        return
    if not Path(checkpoint).is_file():
        raise ConfigurationError(f"network.checkpoint: no such file: {checkpoint!r}; expected a weight file, or null")
    load_weights(network, checkpoint, strict_head=strict_head)
