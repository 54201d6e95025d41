"""Orthogonal projected gradient descent.

Source: Bryniarski et al. 2021, section 4.2. Under the Linf norm the orthogonal direction is turned into its
sign like any other direction, so that the steps are orthogonal only on average.
"""

from __future__ import annotations

import torch

from adv_detect.algorithms.attacks.adaptive.descent import descend
from adv_detect.algorithms.attacks.adaptive.gradients import (
    CLASSIFIER,
    DETECTOR,
    Direction,
    Evaluation,
    classifier_loss,
    counts,
    orthogonal_part,
    unit_gradient,
)
from adv_detect.algorithms.attacks.adaptive.selective import SelectiveArguments
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, Candidates, EndToEndModel
from adv_detect.algorithms.finite import per_row


class OrthogonalArguments(SelectiveArguments):
    """Arguments of the orthogonal attack: those of the selective one."""


def orthogonal(model: EndToEndModel, task: AdaptiveTask, arguments: OrthogonalArguments) -> Candidates:
    """Follow one loss at a time along directions that leave the other one unchanged to first order.

    Costs two gradient evaluations per step.

    Args:
        model: Images to class and detector logits.
        task: What to attack.
        arguments: Steps, restarts, loss.

    Returns:
        Per image the misclassified iterate with the lowest detector logit.
    """

    def choose(evaluation: Evaluation, batch: AdaptiveTask) -> Direction:
        loss = classifier_loss(evaluation.class_logits, batch, arguments.loss, arguments.confidence)
        of_classifier, no_classifier = unit_gradient(loss, evaluation.images, keep_graph=True)
        of_detector, no_detector = unit_gradient(evaluation.evasion, evaluation.images)
        fooled = per_row(evaluation.margin > arguments.confidence, of_detector)
        chosen = torch.where(fooled, of_detector, of_classifier)
        other = torch.where(fooled, of_classifier, of_detector)
        values = orthogonal_part(chosen, other)
        first, second = counts(CLASSIFIER, no_classifier), counts(DETECTOR, no_detector)
        return Direction(values=values, evaluated=first[0] + second[0], zero=first[1] + second[1])

    return descend(model, task, arguments, choose)
