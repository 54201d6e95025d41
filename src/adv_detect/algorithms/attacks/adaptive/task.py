"""Input and results of adaptive attacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from adv_detect.algorithms.attacks.margins import logit_margin
from adv_detect.errors import ConfigurationError

EndToEndModel = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images ``(N, channels, H, W)`` to class logits ``(N, C)`` and detector logits ``(N,)``."""

DescribingModel = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""As an end-to-end model, with what the guide is compared to (trajectory or features) as third tensor."""

EvadingModel = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor, Tensor]]
"""As a describing model, given the classes that the network is to name, with the detector's parts ``(N, M)`` last."""

Describe = Callable[[Tensor], Tensor]
"""Images ``(N, channels, H, W)`` to trajectories ``(N, L, K)`` or features ``(N, D)``."""


@runtime_checkable
class EvadableModel(Protocol):
    """An end-to-end model whose detector says what it would answer if the network named another class."""

    @property
    def detector_stands_alone(self) -> bool:
        """Tell whether :meth:`parts_as` does without the network."""

    def evade(self, images: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Give class logits ``(N, C)``, detector logits ``(N,)``, and their parts under the targets ``(N, M)``.

        The largest part is the detector logit if the network names the target. None means the classes that it names.
        """

    def parts_as(self, images: Tensor, targets: Tensor) -> Tensor:
        """Give the parts ``(N, M)`` under the targets alone, which may cost less."""

    def scores_by_class(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Give class logits and the detector logits under the name of each class, ``(N, C)`` both."""


BudgetNorm = Literal["l2", "linf"]
_Record = TypeVar("_Record")

NO_SUCCESS = -1
"""In place of a number of steps: the image never got through."""
NOT_COUNTED = -2
"""In place of a number of steps: the attack does not count them."""


@dataclass(frozen=True, kw_only=True)
class Guide:
    """Aim of a matching attack: clean trajectories or features.

    Attributes:
        values: Trajectories ``(N, L, K)`` or features ``(N, D)`` of clean images, one per attacked image.
        describe: Gives class logits, detector logits and the same quantity for images, in one pass.
        evade: The same with the parts of the detector logits as if the network named other classes, as
            :meth:`EvadableModel.evade` gives them; None where the model cannot tell.
        weights: Weight of each squared difference, broadcastable to ``values`` and with a row per image; None
            weighs all alike.
    """

    values: Tensor
    describe: DescribingModel
    weights: Tensor | None = None
    evade: EvadingModel | None = None

    def select(self, rows: Tensor) -> Guide:
        """Return the guide of some images only; ``rows`` is int64, ``(n,)``."""
        weights = None if self.weights is None else self.weights[rows]
        return replace(self, values=self.values[rows], weights=weights)


@dataclass(frozen=True, kw_only=True)
class AdaptiveTask:
    """Images to attack and the rules of the attack.

    Attributes:
        images: Clean images within ``bounds``, float, ``(N, channels, H, W)``.
        labels: True classes, int64, ``(N,)``.
        targets: Classes aimed at, int64, ``(N,)``; None for an untargeted attack.
        threshold: Detector logit above which an image is called adversarial.
        bounds: Lowest and highest pixel value.
        norm: Norm of the perturbation budget.
        epsilon: Budget in pixel units; None for attacks that search for the smallest perturbation.
        seed: Seed of random starts.
        indices: Stable number of each image, int64, ``(N,)``; with the seed it decides the image's random
            starts, whatever batch it lies in. Numbered in order when None.
        guide: Clean trajectories or features for matching attacks.
    """

    images: Tensor
    labels: Tensor
    threshold: float
    bounds: tuple[float, float]
    norm: BudgetNorm
    targets: Tensor | None = None
    epsilon: float | None = None
    seed: int = 0
    indices: Tensor | None = None
    guide: Guide | None = None

    def __post_init__(self) -> None:
        """Check shapes and ranges, and number the images where that was left open."""
        _check_ranges(self)
        if self.indices is None:
            object.__setattr__(self, "indices", torch.arange(len(self.images), device=self.images.device))
        _check_lengths(self)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    @property
    def budget(self) -> float:
        """The epsilon; an error for an attack that needs one and has none."""
        if self.epsilon is None:
            raise ConfigurationError("epsilon: this attack needs a perturbation budget, got none; set epsilon")
        return self.epsilon

    def select(self, rows: Tensor) -> AdaptiveTask:
        """Return the task for some images only.

        Args:
            rows: Which images, int64, ``(n,)``.
        """
        picked = {
            name: value[rows]
            for name in ("images", "labels", "targets", "indices")
            if (value := getattr(self, name)) is not None
        }
        guide = None if self.guide is None else self.guide.select(rows)
        return replace(self, guide=guide, **picked)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Images of one attack before the model judges them.

    Attributes:
        images: Best image found per row, ``(N, channels, H, W)``; the clean image where the class never changed.
        gradient_evaluations: Backward passes spent, int64, ``(N,)``.
        zero_gradient_share: Share of them without a gradient, float, ``(N,)``; of classifier and detector
            gradients the larger share.
        first_success: Steps after which the image first got through, int64, ``(N,)``: `NO_SUCCESS` where it never
            did; None for an attack that does not keep count.
    """

    images: Tensor
    gradient_evaluations: Tensor
    zero_gradient_share: Tensor
    first_success: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class AdaptiveResult:
    """The judged outcome of an adaptive attack.

    Attributes:
        images: As in :class:`Candidates`.
        fooled: Misclassified, or for a targeted attack classified as the target, bool, ``(N,)``.
        evaded: Fooled, and detector logit no higher than the threshold, bool, ``(N,)``.
        detector_score: Detector logit of the returned image, ``(N,)``.
        l2: Euclidean size of the perturbation in pixel units, ``(N,)``.
        linf: Largest change of a pixel, ``(N,)``.
        gradient_evaluations: As in :class:`Candidates`.
        zero_gradient_share: As in :class:`Candidates`.
        first_success: As in :class:`Candidates`; `NOT_COUNTED` for an attack that does not keep count.
        non_finite: Failed because a pixel or a logit of the attacked image was NaN or infinite, bool, ``(N,)``; the
            clean image stands in its place.
    """

    images: Tensor
    fooled: Tensor
    evaded: Tensor
    detector_score: Tensor
    l2: Tensor
    linf: Tensor
    gradient_evaluations: Tensor
    zero_gradient_share: Tensor
    first_success: Tensor
    non_finite: Tensor


def concatenate(parts: list[_Record]) -> _Record:
    """Join results of the same type row by row.

    Args:
        parts: At least one dataclass of tensors.
    """
    kind = type(parts[0])
    names = [field.name for field in fields(parts[0]) if getattr(parts[0], field.name) is not None]  # type: ignore[arg-type]
    return kind(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def class_margin(class_logits: Tensor, task: AdaptiveTask) -> Tensor:
    """Measure how far the class logits are on the attacker's side.

    Args:
        class_logits: Shape ``(N, C)``, of images of ``task``.
        task: Gives labels and targets.

    Returns:
        As from :func:`logit_margin`, ``(N,)``.
    """
    if task.targets is None:
        return logit_margin(class_logits, task.labels, targeted=False)
    return logit_margin(class_logits, task.targets, targeted=True)


def _check_ranges(task: AdaptiveTask) -> None:
    if task.norm not in ("l2", "linf"):
        raise ConfigurationError(f"norm: expected one of [l2, linf], got {task.norm!r}")
    if task.epsilon is not None and task.epsilon <= 0:
        raise ConfigurationError(f"epsilon: expected a number above 0, got {task.epsilon}")
    low, high = task.bounds
    if low >= high:
        raise ConfigurationError(f"bounds: expected low < high, got {list(task.bounds)}")
    if len(task.images) and (task.images.amin() < low or task.images.amax() > high):
        raise ConfigurationError(f"images: expected pixels within bounds {list(task.bounds)}; rescale them")


def _check_lengths(task: AdaptiveTask) -> None:
    count = len(task.images)
    rows = {"labels": task.labels, "targets": task.targets, "indices": task.indices}
    for name, value in rows.items():
        if value is not None and value.shape != (count,):
            raise ConfigurationError(f"{name}: expected shape ({count},) as there are images, got {tuple(value.shape)}")
    if task.targets is not None and bool((task.targets == task.labels).any()):
        raise ConfigurationError("targets: expected classes other than the labels, got a target equal to its label")
    if task.guide is not None and len(task.guide.values) != count:
        raise ConfigurationError(f"guide: expected {count} rows as there are images, got {len(task.guide.values)}")
