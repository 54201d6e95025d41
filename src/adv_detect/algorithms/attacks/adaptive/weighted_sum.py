"""Projected gradient descent on classifier loss plus weighted detector loss, with a sweep over the weight.

Source: the detector term in the objective follows Carlini and Wagner, "Adversarial examples are not easily
detected", 2017; here under a fixed budget and for several weights.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from adv_detect.algorithms.attacks.adaptive.combined import CombinedLoss, combined_direction
from adv_detect.algorithms.attacks.adaptive.descent import DescentArguments, descend
from adv_detect.algorithms.attacks.adaptive.gradients import ClassifierLoss, Evaluation, classifier_loss
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, Candidates, EndToEndModel

Weight = Annotated[float, Field(ge=0)]


class WeightedSumArguments(DescentArguments):
    """Arguments of the weighted-sum attack.

    Attributes:
        weights: Weights of the detector logit, tried in this order; the best image of all is kept.
        loss: Classifier loss.
        hinge_confidence: Class margin (logits) at which the hinge is satisfied.
    """

    weights: tuple[Weight, ...] = Field((0.1, 0.3, 1.0), min_length=1)
    loss: ClassifierLoss = "hinge"
    hinge_confidence: float = Field(1.0, ge=0)

    @property
    def total_steps(self) -> int:
        """Steps of all runs on an image that withstands."""
        return super().total_steps * len(self.weights)


def weighted_sum(model: EndToEndModel, task: AdaptiveTask, arguments: WeightedSumArguments) -> Candidates:
    """Descend classifier loss plus weight times detector logit, once per weight.

    Args:
        model: Images to class and detector logits.
        task: What to attack.
        arguments: Weights, loss, steps, restarts.

    Returns:
        Per image the misclassified iterate with the lowest detector logit over all weights.
    """
    choices = [combined_direction(_summed_loss(weight, arguments)) for weight in arguments.weights]
    return descend(model, task, arguments, *choices)


def _summed_loss(weight: float, arguments: WeightedSumArguments) -> CombinedLoss:
    def loss(evaluation: Evaluation, batch: AdaptiveTask) -> Tensor:
        attacked = classifier_loss(evaluation.class_logits, batch, arguments.loss, arguments.hinge_confidence)
        return attacked + weight * evaluation.evasion

    return loss
