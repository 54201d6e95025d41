"""Attack on 1:1 verification behind a detector: the embedding goes to another person's while the detector passes.

A pair is accepted where its embeddings are similar enough and neither picture is flagged, so the class is only a means:
of the iterates that are misclassified and pass, the one is kept whose embedding is most similar to the guide's
(impersonation) or, without a target, least similar to the own one (dodging). Until both are fooled the steps are those
of selective projected gradient descent; then they follow the similarity while the detector passes, and the detector
while it does not.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from adv_detect.algorithms.attacks.adaptive.descent import Descent, DescentArguments
from adv_detect.algorithms.attacks.adaptive.gradients import (
    CLASSIFIER,
    DETECTOR,
    Direction,
    Evaluation,
    classifier_loss,
    counts,
    unit_gradient,
)
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, Candidates, EndToEndModel
from adv_detect.algorithms.attacks.adaptive.tracker import NEVER, Tracker
from adv_detect.errors import ConfigurationError

FLAGGED = 10.0
"""Added to the key of an image that the detector flags: those that pass, whose gaps are at most 2, come first."""


class VerificationArguments(DescentArguments):
    """Arguments of the attack on verification.

    Attributes:
        goal: Cosine distance to the guide (without a target, similarity to the own embedding) at which an image that
            passes leaves the batch.
    """

    goal: float = Field(0.05, ge=0, le=2)


def verification(model: EndToEndModel, task: AdaptiveTask, arguments: VerificationArguments) -> Candidates:
    """Move embeddings to a guide's, or away from the own one, while the detector passes.

    Args:
        model: Images to class and detector logits; the guide's model is used in its place.
        task: What to attack; its guide holds embeddings ``(N, D)`` to approach. Without targets the embeddings of the
            clean images take their place, to get away from.
        arguments: Steps, restarts, goal.

    Returns:
        Per image the misclassified iterate that passes with the smallest gap; where none passes, the misclassified one
        with the lowest detector logit.

    Raises:
        ConfigurationError: There is no guide.
    """
    if task.guide is None:
        raise ConfigurationError("guide: this attack moves images towards a guide, got none; give the task a guide")
    if task.targets is None:
        with torch.no_grad():
            own = task.guide.describe(task.images)[2]
        task = replace(task, guide=replace(task.guide, values=own))
    tracker = Tracker(task)

    def choose(evaluation: Evaluation, batch: AdaptiveTask) -> Direction:
        fooled = evaluation.margin > arguments.confidence
        to_detector = fooled & (evaluation.score > task.threshold - arguments.detector_margin)
        of_class = classifier_loss(evaluation.class_logits, batch, "margin", arguments.confidence)
        follow = torch.where(fooled, similarity_gap(evaluation, batch), of_class)
        values, absent = unit_gradient(torch.where(to_detector, evaluation.evasion, follow), evaluation.images)
        evaluated, zero = counts(torch.where(to_detector, DETECTOR, CLASSIFIER), absent)
        return Direction(values=values, evaluated=evaluated, zero=zero)

    _SimilarityDescent(model, task, tracker, arguments=arguments, choose=choose, use_guide=True).run()
    return tracker.candidates()


class _SimilarityDescent(Descent):
    """Keeps the iterate that passes with the smallest gap."""

    def _judge(self, rows: Tensor, evaluation: Evaluation) -> None:
        gap = similarity_gap(evaluation, self._task.select(rows)).detach()
        fooled = evaluation.margin > self._arguments.confidence
        passed = evaluation.score <= self._task.threshold - self._arguments.detector_margin
        above = FLAGGED + (evaluation.score - self._task.threshold).clamp_min(0.0)
        self._tracker.succeed(rows, fooled & passed, self._tracker.steps)
        keys = torch.where(fooled, torch.where(passed, gap, above), NEVER)
        self._tracker.offer(rows, evaluation.images.detach(), keys)
        if self._arguments.return_early and isinstance(self._arguments, VerificationArguments):
            self._tracker.finish(rows, fooled & passed & (gap <= self._arguments.goal))


def similarity_gap(evaluation: Evaluation, batch: AdaptiveTask) -> Tensor:
    """Measure how far the attacker's aim is.

    Args:
        evaluation: Made with the guide.
        batch: Of the same rows.

    Returns:
        Cosine distance to the guide ``(N,)``, in [0, 2]; without targets the cosine similarity to it, at least 0.
    """
    assert batch.guide is not None
    assert evaluation.description is not None
    similarity = functional.cosine_similarity(evaluation.description, batch.guide.values, dim=1)
    return 1.0 - similarity if batch.targets is not None else similarity.clamp_min(0.0)
