"""Deep-features attack with the detector in its objective.

Source: Massoli et al. 2021, white-box attack on face recognition: the distance of the features to those of a guide
image plus 10 times the detector's binary cross entropy to "authentic", within a largest change per pixel.
Departure: projected gradient descent over a batch instead of L-BFGS-B one image at a time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from adv_detect.algorithms.attacks.adaptive.combined import CombinedLoss, combined_direction, guide_gap
from adv_detect.algorithms.attacks.adaptive.descent import Descent, DescentArguments
from adv_detect.algorithms.attacks.adaptive.geometry import l2_norms
from adv_detect.algorithms.attacks.adaptive.gradients import Evaluation
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, Candidates, EndToEndModel
from adv_detect.algorithms.attacks.adaptive.tracker import Tracker
from adv_detect.errors import ConfigurationError
from adv_detect.params import PositiveNumber

REFERENCE_MAX_THRES = 10.0
REFERENCE_DETECTOR_WEIGHT = 10.0
EIGHT_BIT_RANGE = 255.0
REFERENCE_THRESHOLD = 0.0
"""The reference lets a detector probability below 0.5 pass, which is a logit below 0."""


class DeepDetectorArguments(DescentArguments):
    """Arguments of the deep-features attack on network and detector.

    Attributes:
        max_thres: Largest change of a pixel, in units of an 8-bit image (0 to 255); 10 in the paper.
        detector_weight: Weight of the detector's cross entropy; 10 in the paper.
        selection: ``reference`` stops as soon as the class is fooled, whatever the detector says; ``correct``
            goes on until both are fooled and aims at the task's threshold.
    """

    max_thres: PositiveNumber = REFERENCE_MAX_THRES
    detector_weight: float = Field(REFERENCE_DETECTOR_WEIGHT, ge=0)
    selection: Literal["reference", "correct"] = "correct"


def deep_detector(model: EndToEndModel, task: AdaptiveTask, arguments: DeepDetectorArguments) -> Candidates:
    """Move features to a guide's while the detector is kept quiet.

    Args:
        model: Images to class and detector logits; the guide's model is used in its place. Where a nearest
            neighbour names the face, class logits are minus the distances to the class medoids.
        task: What to attack, under the Linf norm; its guide holds clean features ``(N, D)``. Its epsilon is
            replaced by ``max_thres``.
        arguments: Budget, weights, selection, steps.

    Returns:
        ``correct``: per image the misclassified iterate with the lowest detector logit; ``reference``: the first
        misclassified iterate.

    Raises:
        ConfigurationError: The norm is not Linf.
    """
    if task.norm != "linf":
        raise ConfigurationError(f"norm: deep_detector bounds the change per pixel, expected linf, got {task.norm!r}")
    low, high = task.bounds
    bounded = replace(task, epsilon=arguments.max_thres / EIGHT_BIT_RANGE * (high - low))
    reference = arguments.selection == "reference"
    aim = REFERENCE_THRESHOLD if reference else task.threshold
    tracker = Tracker(bounded)
    Descent(
        model,
        bounded,
        tracker,
        arguments=arguments,
        choose=combined_direction(_deep_loss(arguments.detector_weight, aim)),
        keep="first" if reference else "lowest_score",
        use_guide=True,
    ).run()
    return tracker.candidates()


def _deep_loss(weight: float, aim: float) -> CombinedLoss:
    def loss(evaluation: Evaluation, batch: AdaptiveTask) -> Tensor:
        distance = l2_norms(guide_gap(evaluation, batch.guide))
        return distance + weight * functional.softplus(evaluation.detector_logits - aim)

    return loss
