"""Detectors by the kind that a configuration names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import get_args

import torch

from adv_detect.algorithms.detectors.base import Detector, LearnsFrom, Reads
from adv_detect.algorithms.detectors.controls import MarginDetector
from adv_detect.algorithms.detectors.joined import JoinedDetector
from adv_detect.algorithms.detectors.multiview.clean import DensityDetector, ViewConsistencyDetector
from adv_detect.algorithms.detectors.multiview.detector import MultiviewDetector
from adv_detect.algorithms.detectors.published import (
    DkNNDetector,
    KDEDetector,
    LIDDetector,
    MahalanobisDetector,
    NICDetector,
    SqueezingDetector,
    adapted,
    is_library_detector,
)
from adv_detect.algorithms.detectors.published.adapter import LIBRARY
from adv_detect.algorithms.detectors.trajectory.detector import TrajectoryDetector
from adv_detect.algorithms.detectors.trajectory.registry import readout_kinds
from adv_detect.algorithms.detectors.twin import TwinDetector
from adv_detect.algorithms.representatives import Representatives
from adv_detect.dotted import import_dotted
from adv_detect.errors import ConfigurationError, unknown_choice
from adv_detect.params import DetectorParams, ImageChangeParams, TrajectoryKind
from adv_detect.sharding.sources import source_identity

REGISTERED: dict[str, type[Detector]] = {
    "margin": MarginDetector,
    "density": DensityDetector,
    "view-consistency": ViewConsistencyDetector,
    "multiview": MultiviewDetector,
    "twin": TwinDetector,
    "joined": JoinedDetector,
    "mahalanobis": MahalanobisDetector,
    "lid": LIDDetector,
    "kde": KDEDetector,
    "feature-squeezing": SqueezingDetector,
    "dknn": DkNNDetector,
    "nic": NICDetector,
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
            made = made_by(representatives, **configuration.arguments)
    except TypeError as exc:
        raise ConfigurationError(
            f"arguments of detector {configuration.kind!r}: {exc}; it was called with the class representatives and "
            f"{configuration.arguments}"
        ) from exc
    _check_reads(configuration, made)
    return made


def detector_reads(configuration: DetectorParams) -> Reads:
    """Say what a configured detector reads; nothing is built for it.

    Args:
        configuration: Kind and arguments.

    Returns:
        What it reads.
    """
    return detector_class(configuration.kind).needs(configuration.arguments)[1]


def needed_views(
    configurations: Mapping[str, DetectorParams], views: Mapping[str, ImageChangeParams]
) -> dict[str, ImageChangeParams]:
    """Choose the views that some detectors read.

    Args:
        configurations: The detectors, by name.
        views: The configured views, by name.

    Returns:
        Those that are read, in configured order.

    Raises:
        ConfigurationError: A detector reads a view that is not configured.
    """
    wanted = set()
    for name, one in configurations.items():
        for view in detector_reads(one).views:
            if view not in views:
                key = f"detector_training.configurations.{name}: the detector reads a view; in detector_training.views"
                raise unknown_choice(key, view, views)
            wanted.add(view)
    return {name: one for name, one in views.items() if name in wanted}


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


def needs_confident(configuration: DetectorParams) -> bool:
    """Say whether a detector, or one that it is made of, must learn from confident attacks too."""
    return any(detector_class(one.kind).needs_confident(one.arguments) for _, one in with_members(configuration))


def reads_twin(configurations: Mapping[str, DetectorParams]) -> list[str]:
    """Name the configured detectors that read the twin."""
    return [name for name, one in configurations.items() if detector_reads(one).twin]


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


def _check_reads(configuration: DetectorParams, made: Detector) -> None:
    """Refuse an instance that reads more than its class states, from which follows what is computed."""
    stated = detector_reads(configuration)
    if made.reads != stated:
        raise ConfigurationError(
            f"detector {configuration.kind!r}: it was expected to read {stated}, got {made.reads}; override the class "
            "method needs where that depends on the arguments"
        )


def detector_class(kind: str) -> type[Detector]:
    """Find what makes a kind of detector.

    Args:
        kind: Registered name or dotted path.

    Returns:
        A subclass of :class:`Detector`; a class of pytorch-ood is made one.

    Raises:
        ConfigurationError: There is none of that name, or it reads what activations do not hold.
    """
    if kind in get_args(TrajectoryKind):
        return TrajectoryDetector
    if kind in REGISTERED:
        return REGISTERED[kind]
    choices = (*detector_kinds(), "<dotted path of a Detector>")
    if "." not in kind:
        raise unknown_choice("detector kind", kind, choices)
    return _imported(kind, f"one of [{', '.join(choices)}]")


def _imported(kind: str, expected: str) -> type[Detector]:
    """Import a detector class; one of pytorch-ood is adapted."""
    if kind.split(".", maxsplit=1)[0] == LIBRARY and find_spec(LIBRARY) is None:
        raise ConfigurationError(
            f"detector kind {kind!r}: pytorch-ood is not installed; pip install -e '.[ood]', or leave it out"
        )
    found = import_dotted("detector kind", kind, expected)
    if is_library_detector(found):
        return adapted(found)
    if not (isinstance(found, type) and issubclass(found, Detector)):
        raise ConfigurationError(
            f"detector kind {kind!r}: expected a subclass of adv_detect.algorithms.detectors.Detector, got {found!r}"
        )
    return found
