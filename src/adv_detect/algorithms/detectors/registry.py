"""Detectors by the kind that a configuration names."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import get_args

import torch

from adv_detect.algorithms.detectors.base import Detector, LearnsFrom
from adv_detect.algorithms.detectors.controls import MarginDetector
from adv_detect.algorithms.detectors.joined import JoinedDetector
from adv_detect.algorithms.detectors.trajectory.detector import TrajectoryDetector
from adv_detect.algorithms.detectors.trajectory.registry import readout_kinds
from adv_detect.algorithms.detectors.twin import TwinDetector
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError, unknown_choice
from adv_detect.params import DetectorParams, TrajectoryKind
from adv_detect.sharding.sources import source_identity

REGISTERED: dict[str, type[Detector]] = {
    "margin": MarginDetector,
    "twin": TwinDetector,
    "joined": JoinedDetector,
}
"""Detectors that take the class representatives and the configured arguments, by name."""


def detector_kinds() -> tuple[str, ...]:
    """Name every registered detector."""
    return (*readout_kinds(), *REGISTERED)


def build_detector(configuration: DetectorParams, representatives: Representatives, *, seed: int = 0) -> Detector:
    """Make a detector that has learned nothing yet; the global random state stays as it is.

    Args:
        configuration: Kind (a registered name, or the dotted path of a subclass of :class:`Detector`) and arguments.
        representatives: Class representatives of the network under attack.
        seed: Decides initial weights.

    Returns:
        The detector, on the CPU.

    Raises:
        ConfigurationError: The kind is unknown or no detector, or does not take the arguments.
    """
    if configuration.kind in get_args(TrajectoryKind):
        return TrajectoryDetector(representatives, configuration)
    made_by = detector_class(configuration.kind)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return made_by(representatives, **configuration.arguments)
    except TypeError as exc:
        raise ConfigurationError(
            f"arguments of detector {configuration.kind!r}: {exc}; it was called with the class representatives and "
            f"{configuration.arguments}"
        ) from exc


def with_members(configuration: DetectorParams, name: str = "") -> Iterator[tuple[str, DetectorParams]]:
    """List a configuration and those of the detectors that it is made of.

    Args:
        configuration: A detector.
        name: Its key.

    Yields:
        Key and configuration; members below ``arguments.members``.
    """
    yield name, configuration
    for member, one in detector_class(configuration.kind).members_of(configuration.arguments).items():
        yield from with_members(one, f"{name}.arguments.members.{member}")


def is_differentiable(configuration: DetectorParams) -> bool:
    """Say whether a white-box attack can follow a detector: all that it is made of."""
    return all(detector_class(one.kind).differentiable for _, one in with_members(configuration))


def learns_from(configuration: DetectorParams) -> LearnsFrom:
    """Say what a configured detector is fitted on."""
    return detector_class(configuration.kind).needs(configuration.arguments)[0]


def reads_twin(configurations: Mapping[str, DetectorParams]) -> list[str]:
    """Name the configured detectors that read the twin."""
    needs = {name: detector_class(one.kind).needs(one.arguments) for name, one in configurations.items()}
    return [name for name, (_, reads) in needs.items() if reads.twin]


def detector_source(configuration: DetectorParams) -> dict[str, str]:
    """Identify the code of a detector, so that a change of it makes anew what was learned with it.

    Args:
        configuration: The detector; those that it is made of count.

    Returns:
        As from :func:`adv_detect.sharding.sources.source_identity`.
    """
    found: dict[str, str] = {}
    for _, one in with_members(configuration):
        found |= source_identity(detector_class(one.kind), one.kind if "." in one.kind else "")
    return found


def detector_class(kind: str) -> type[Detector]:
    """Find what makes a kind of detector.

    Args:
        kind: Registered name or dotted path.

    Returns:
        A subclass of :class:`Detector`.

    Raises:
        ConfigurationError: There is none of that name.
    """
    if kind in get_args(TrajectoryKind):
        return TrajectoryDetector
    if kind in REGISTERED:
        return REGISTERED[kind]
    module, _, attribute = kind.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as exc:
        choices = (*detector_kinds(), "<dotted path of a Detector>")
        raise unknown_choice("detector kind", kind, choices) from exc
    if not (isinstance(found, type) and issubclass(found, Detector)):
        raise ConfigurationError(
            f"detector kind {kind!r}: expected a subclass of adv_detect.algorithms.detectors.Detector, got {found!r}"
        )
    return found
