"""Changes of images by the kind that a configuration names: what views and benign changes are made of."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from adv_detect.algorithms.image_kinds import REGISTERED, ImageKind
from adv_detect.algorithms.pixels import clip
from adv_detect.errors import ConfigurationError, DataError, unknown_choice
from adv_detect.params import ImageChangeParams
from adv_detect.sharding import fingerprint
from adv_detect.sharding.sources import source_identity


@dataclass(frozen=True)
class ImageChange:
    """A configured change of images in the pixel range of a network.

    Attributes:
        name: What messages call it.
        change: Images in [0, 1] and a seed to changed images, or a function of one's own in the network's range.
    """

    name: str
    change: ImageKind | Callable[..., Any]

    def __call__(self, images: Tensor, bounds: tuple[float, float], *, seed: int = 0) -> Tensor:
        """Change images.

        Args:
            images: Shape ``(N, channels, H, W)``, within ``bounds``.
            bounds: Lowest and highest pixel value.
            seed: Of what is drawn.

        Returns:
            Changed images of the same shape, within ``bounds``; gradients flow to ``images``.

        Raises:
            DataError: A function of one's own gives something else.
        """
        low, high = bounds
        if isinstance(self.change, ImageKind):
            unit = self.change.apply((images - low) / (high - low), seed)
            return low + clip(unit, 0.0, 1.0) * (high - low)
        found = self.change(images, bounds)
        if not isinstance(found, Tensor) or found.shape != images.shape or not bool(torch.isfinite(found).all()):
            shown = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise DataError(f"{self.name}: expected finite images of shape {tuple(images.shape)}, got {shown}")
        return clip(found, low, high)


def build_change(key: str, params: ImageChangeParams) -> ImageChange:
    """Make a change from its configuration.

    Args:
        key: Configuration key, for messages.
        params: Kind and arguments.

    Returns:
        The change.

    Raises:
        ConfigurationError: The kind is unknown, or does not take the arguments.
    """
    made_by = _made_by(key, params.kind)
    if isinstance(made_by, type) and issubclass(made_by, ImageKind):
        try:
            return ImageChange(key, made_by(**params.arguments))
        except ValidationError as exc:
            raise ConfigurationError(f"{key}.arguments: {argument_faults(exc)}") from exc
    try:
        inspect.signature(made_by).bind(None, None, **params.arguments)
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(
            f"{key}.arguments: {exc}; {params.kind} is called with images, bounds and {params.arguments}"
        ) from exc
    return ImageChange(key, partial(made_by, **params.arguments))


def is_random(params: ImageChangeParams) -> bool:
    """Tell whether a registered kind draws random numbers."""
    return params.kind in REGISTERED and REGISTERED[params.kind].random


def change_identity(params: ImageChangeParams) -> str:
    """Digest what decides the result of a change: kind, arguments and code."""
    own = params.kind if "." in params.kind else ""
    return fingerprint(params.kind, params.arguments, source_identity(_made_by(params.kind, params.kind), own))


def _made_by(key: str, kind: str) -> Callable[..., Any]:
    if kind in REGISTERED:
        return REGISTERED[kind]
    module, _, attribute = kind.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as exc:
        raise unknown_choice(f"{key}.kind", kind, (*REGISTERED, "<dotted path of a function>")) from exc
    if not callable(found):
        raise ConfigurationError(f"{key}.kind: expected a function (images, bounds) -> images, got {found!r}")
    own: Callable[..., Any] = found
    return own


def argument_faults(error: ValidationError) -> str:
    """Say what is wrong with arguments, one sentence a value.

    Args:
        error: What checking them gave.

    Returns:
        Name of the argument, what was expected and what came.
    """
    found = []
    for one in error.errors(include_url=False):
        name = ".".join(map(str, one["loc"]))
        text = one["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        if one["type"] == "missing":
            text = "expected a value, got none"
        elif one["type"] != "value_error":
            text += f", got {one['input']!r}"
        found.append(f"{name}: {text}" if name else text)
    return "; ".join(found)
