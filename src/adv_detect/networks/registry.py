"""Networks by name or by dotted path."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from adv_detect.dotted import import_dotted
from adv_detect.errors import ConfigurationError, refuse_non_finite, unknown_choice
from adv_detect.networks.mobilefacenet import MOBILEFACENET_LAYERS, MobileFaceNet
from adv_detect.networks.senet50 import SENET50_LAYERS, SENet50
from adv_detect.networks.small import SMALL_LAYERS, SmallNetwork
from adv_detect.networks.strided import STRIDED_LAYERS, StridedNetwork
from adv_detect.networks.wide import WideResNet, wide_layers
from adv_detect.sharding.sources import source_identity

NAME_KEY = "network.name"
ARGUMENTS_KEY = "network.arguments"
DOTTED_HINT = "a dotted path such as 'torchvision.models.resnet18'"


@dataclass(frozen=True)
class Registration:
    """A named network.

    Attributes:
        constructor: Builds the network; takes keyword arguments only.
        layers: Names of the layers read for trajectories, in network order.
    """

    constructor: Callable[..., nn.Module]
    layers: tuple[str, ...]


REGISTRY: dict[str, Registration] = {
    "small": Registration(SmallNetwork, SMALL_LAYERS),
    "strided": Registration(StridedNetwork, STRIDED_LAYERS),
    "wide": Registration(WideResNet, wide_layers()),
    "senet50": Registration(SENet50, SENET50_LAYERS),
    "mobilefacenet": Registration(MobileFaceNet, MOBILEFACENET_LAYERS),
}


def build_network(name: str, *, num_classes: int | None = None, **kwargs: Any) -> nn.Module:
    """Build a network with fresh weights, drawn from PyTorch's current random state.

    Args:
        name: ``small``, ``strided``, ``wide``, ``senet50``, ``mobilefacenet``, or the dotted path of an importable
            constructor (torchvision, timm, one's own).
        num_classes: Number of classes C; passed on only to a constructor that takes ``num_classes``. None keeps
            the constructor's default.
        **kwargs: Further arguments of the constructor.

    Returns:
        The network, in training mode.

    Raises:
        ConfigurationError: When the name is unknown, the path cannot be imported or called, or the constructor
            refuses its arguments, or one of these is not finite.
    """
    refuse_non_finite(ARGUMENTS_KEY, kwargs)
    constructor = find_constructor(name)
    arguments = dict(kwargs)
    if num_classes is not None and _takes(constructor, "num_classes"):
        arguments["num_classes"] = num_classes
    _check_arguments(name, constructor, arguments)
    try:
        network = constructor(**arguments)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{ARGUMENTS_KEY}: {name!r} was built with {arguments}: {exc}") from exc
    except (TypeError, ValueError, RuntimeError, OSError) as exc:
        raise ConfigurationError(f"{ARGUMENTS_KEY}: {name!r} cannot be built with {arguments}: {exc}") from exc
    if not isinstance(network, nn.Module):
        got = type(network).__name__
        raise ConfigurationError(f"{NAME_KEY}: expected a constructor of a torch.nn.Module, {name!r} returned {got}")
    return network


def default_layers(name: str) -> tuple[str, ...]:
    """Name the layers read for trajectories.

    Args:
        name: Name of a registered network.

    Returns:
        Module names in network order.

    Raises:
        ConfigurationError: For a dotted path, which has no default, and for an unknown name.
    """
    if name in REGISTRY:
        return REGISTRY[name].layers
    if "." in name:
        raise ConfigurationError(f"network.layers: {name!r} has no default; set layers to a list of module names")
    raise unknown_choice(NAME_KEY, name, REGISTRY)


def find_constructor(name: str) -> Callable[..., nn.Module]:
    """Find the constructor of a network.

    Args:
        name: A registered name or a dotted path.

    Returns:
        The constructor.

    Raises:
        ConfigurationError: When the name is unknown, or the path cannot be imported or called.
    """
    if name in REGISTRY:
        return REGISTRY[name].constructor
    if "." not in name:
        raise unknown_choice(NAME_KEY, name, [*REGISTRY, DOTTED_HINT])
    constructor = import_dotted(NAME_KEY, name, f"one of [{', '.join(sorted(REGISTRY))}] or {DOTTED_HINT}")
    if not callable(constructor):
        got = type(constructor).__name__
        raise ConfigurationError(f"{NAME_KEY}: expected {DOTTED_HINT} to a constructor, {name!r} is a {got}")
    found: Callable[..., nn.Module] = constructor
    return found


def network_source(name: str) -> dict[str, str]:
    """Identify the code of a network, so that a change of it makes anew what was made with it.

    Args:
        name: A registered name or a dotted path.

    Returns:
        As from :func:`adv_detect.sharding.sources.source_identity`.

    Raises:
        ConfigurationError: As from :func:`find_constructor`.
    """
    return source_identity(find_constructor(name), "" if name in REGISTRY else name)


def _parameters(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """Return the named parameters, or None where anything goes (``**kwargs`` or no readable signature)."""
    try:
        parameters = inspect.signature(constructor).parameters
    except ValueError:
        return None
    if any(entry.kind is inspect.Parameter.VAR_KEYWORD for entry in parameters.values()):
        return None
    return dict(parameters)


def _takes(constructor: Callable[..., Any], argument: str) -> bool:
    parameters = _parameters(constructor)
    return parameters is None or argument in parameters


def _check_arguments(name: str, constructor: Callable[..., Any], arguments: dict[str, Any]) -> None:
    parameters = _parameters(constructor)
    unknown = sorted(set(arguments) - set(parameters)) if parameters is not None else []
    if unknown:
        raise unknown_choice(f"{ARGUMENTS_KEY} of {name!r}", ", ".join(unknown), parameters or ())
