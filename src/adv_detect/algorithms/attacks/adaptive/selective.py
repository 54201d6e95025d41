"""Selective projected gradient descent, and its sibling that follows the classifier alone.

Source: Bryniarski, Hingun, Pachuca, Wang, Carlini, "Evading adversarial example detection defenses with
orthogonal projected gradient descent", 2021, section 4.1. Departure: the classifier loss is the class margin
unless configured otherwise, because cross entropy has no gradient on a confident network.
"""

from __future__ import annotations

import torch

from adv_detect.algorithms.attacks.adaptive.descent import DescentArguments, descend
from adv_detect.algorithms.attacks.adaptive.gradients import (
    CLASSIFIER,
    DETECTOR,
    ClassifierLoss,
    Direction,
    Evaluation,
    classifier_loss,
    counts,
    unit_gradient,
)
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, Candidates, EndToEndModel


class SelectiveArguments(DescentArguments):
    """Arguments of the attacks that follow one loss at a time.

    Attributes:
        loss: Classifier loss to descend.
    """

    loss: ClassifierLoss = "margin"


def selective(model: EndToEndModel, task: AdaptiveTask, arguments: SelectiveArguments) -> Candidates:
    """Follow the classifier until it is fooled, then the detector, image by image and step by step.

    Args:
        model: Images to class and detector logits.
        task: What to attack.
        arguments: Steps, restarts, loss.

    Returns:
        Per image the misclassified iterate with the lowest detector logit.
    """

    def choose(evaluation: Evaluation, batch: AdaptiveTask) -> Direction:
        fooled = evaluation.margin > arguments.confidence
        attacked = classifier_loss(evaluation.class_logits, batch, arguments.loss, arguments.confidence)
        values, absent = unit_gradient(torch.where(fooled, evaluation.evasion, attacked), evaluation.images)
        evaluated, zero = counts(torch.where(fooled, DETECTOR, CLASSIFIER), absent)
        return Direction(values=values, evaluated=evaluated, zero=zero)

    return descend(model, task, arguments, choose)


def classifier_only(model: EndToEndModel, task: AdaptiveTask, arguments: SelectiveArguments) -> Candidates:
    """Follow the classifier alone: the baseline that every adaptive attack has to beat.

    Args:
        model: Images to class and detector logits.
        task: What to attack.
        arguments: Steps, restarts, loss.

    Returns:
        Per image the misclassified iterate with the lowest detector logit.
    """

    def choose(evaluation: Evaluation, batch: AdaptiveTask) -> Direction:
        loss = classifier_loss(evaluation.class_logits, batch, arguments.loss, arguments.confidence)
        values, absent = unit_gradient(loss, evaluation.images)
        evaluated, zero = counts(CLASSIFIER, absent)
        return Direction(values=values, evaluated=evaluated, zero=zero)

    return descend(model, task, arguments, choose)
