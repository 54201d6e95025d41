"""Directions of one loss made of several parts."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from adv_detect.algorithms.attacks.adaptive.descent import ChooseDirection
from adv_detect.algorithms.attacks.adaptive.gradients import (
    CLASSIFIER,
    DETECTOR,
    Direction,
    Evaluation,
    counts,
    is_absent,
    raw_gradient,
)
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, Guide
from adv_detect.errors import ConfigurationError

CombinedLoss = Callable[[Evaluation, AdaptiveTask], Tensor]

PROBE_EVERY = 25
"""In a sum, a detector without gradient hides behind the other parts; so it is differentiated alone this often."""


def combined_direction(loss: CombinedLoss) -> ChooseDirection:
    """Make a direction out of a summed loss, with a regular check of the detector's own gradient.

    Args:
        loss: Loss per image, ``(N,)``; a row's value must depend on that row alone.

    Returns:
        A chooser for one run; it counts its calls, so make a new one for each run. Its direction is the gradient
        at its own scale.
    """
    calls = 0

    def choose(evaluation: Evaluation, batch: AdaptiveTask) -> Direction:
        nonlocal calls
        calls += 1
        return probed_direction(loss(evaluation, batch), evaluation, probing=calls % PROBE_EVERY == 1)

    return choose


def probed_direction(loss: Tensor, evaluation: Evaluation, *, probing: bool) -> Direction:
    """Differentiate a summed loss, and beside it the detector's part alone where that is wanted.

    Args:
        loss: Loss per image, ``(N,)``.
        evaluation: What it was computed from.
        probing: Whether to look at the detector's own gradient too.

    Returns:
        The gradient at its own scale, with the counts of both.
    """
    values = raw_gradient(loss, evaluation.images, keep_graph=probing)
    evaluated, zero = counts(CLASSIFIER, is_absent(values))
    if probing:
        of_detector = raw_gradient(evaluation.evasion, evaluation.images)
        more_evaluated, more_zero = counts(DETECTOR, is_absent(of_detector))
        evaluated, zero = evaluated + more_evaluated, zero + more_zero
    return Direction(values=values, evaluated=evaluated, zero=zero)


def guide_gap(evaluation: Evaluation, guide: Guide | None) -> Tensor:
    """Return the difference between the description of the iterates and the guide.

    Args:
        evaluation: Made with ``use_guide``.
        guide: Of the same rows.

    Returns:
        Shape of the description, ``(N, L, K)`` or ``(N, D)``.

    Raises:
        ConfigurationError: There is no guide, or its values have another shape than the description.
    """
    if guide is None or evaluation.description is None:
        raise ConfigurationError("guide: this attack moves images towards a guide, got none; give the task a guide")
    if evaluation.description.shape != guide.values.shape:
        raise ConfigurationError(
            f"guide: expected values of shape {tuple(evaluation.description.shape)} as the model describes its "
            f"images, got {tuple(guide.values.shape)}"
        )
    return evaluation.description - guide.values
