"""Attack on a gate for verification that asks two networks: both embeddings go to another person's.

Such a gate accepts a pair if both find the same person and, in the form ``both``, a detector flags no picture. The
attack follows all that the form reads: the similarities in both networks, each measured against what clean pictures of
a person have, through a smooth maximum that gives either of them a gradient; and, where these suffice or the person
aimed at is the most similar one, the detector as long as it does not pass. Kept is the iterate that passes with the
smallest joint shortfall. Each run is made again within smaller budgets, so that a larger one does not do worse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

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
    counts,
    unit_gradient,
)
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, Candidates, EndToEndModel, Guide
from adv_detect.algorithms.attacks.adaptive.tracker import Tracker
from adv_detect.errors import ConfigurationError

FLAGGED = 1000.0
"""Added to the key of an image that the detector flags: those that pass come first."""


@dataclass(frozen=True, kw_only=True)
class SimilarityGuide(Guide):
    """Aim in two networks: its values are embeddings ``(N, 2, D)``.

    Attributes:
        levels: Per image and network the similarity from which clean pictures are found to show a person, and its
            standard deviation over clean pictures, ``(N, 2, 2)``.
    """

    levels: Tensor

    def select(self, rows: Tensor) -> SimilarityGuide:
        """Return the guide of some images only; ``rows`` is int64, ``(n,)``."""
        return replace(self, values=self.values[rows], levels=self.levels[rows])


class SecondOpinionArguments(DescentArguments):
    """Arguments of the attack on two similarities.

    Attributes:
        gate: Form of the gate: ``similarity`` asks no detector, ``both`` does.
        goal: How far beyond what is typical of clean pictures, in their standard deviations, the worse similarity is to
            be for an image that passes to leave the batch.
        shares: Parts of the budget within which a run is made, one after the other.
    """

    gate: Literal["similarity", "both"] = "both"
    goal: float = Field(2.0, ge=0)
    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field((1.0, 0.5), min_length=1)

    @property
    def total_steps(self) -> int:
        """Steps of all runs on an image that withstands."""
        return self.steps * self.restarts * len(self.shares)


def second_opinion(model: EndToEndModel, task: AdaptiveTask, arguments: SecondOpinionArguments) -> Candidates:
    """Move the embeddings of two networks to those of a person, or away from the own ones, while the detector passes.

    Args:
        model: Images to class and detector logits; the guide's model is used in its place.
        task: What to attack; its guide is a :class:`SimilarityGuide` of the persons aimed at; without targets of the
            own ones, to get away from.
        arguments: Steps, restarts, form of the gate, goal.

    Returns:
        Per image the iterate that passes with the smallest gap; where none passes, the one with the lowest detector
        logit.

    Raises:
        ConfigurationError: There is no such guide.
    """
    if not isinstance(task.guide, SimilarityGuide):
        raise ConfigurationError(
            "guide: this attack moves images towards a guide with levels of similarity, got none; give the task one"
        )
    tracker = Tracker(task)

    def choose(evaluation: Evaluation, batch: AdaptiveTask) -> Direction:
        gap = joint_gap(evaluation, batch)
        caught = evaluation.score > batch.threshold - arguments.detector_margin
        there = (worst_gap(evaluation, batch).detach() <= 0) | (evaluation.margin > arguments.confidence)
        to_detector = caught & there
        values, absent = unit_gradient(torch.where(to_detector, evaluation.evasion, gap), evaluation.images)
        evaluated, zero = counts(torch.where(to_detector, DETECTOR, CLASSIFIER), absent)
        return Direction(values=values, evaluated=evaluated, zero=zero)

    for share in arguments.shares:
        smaller = replace(task, epsilon=task.budget * share)
        _GapDescent(model, smaller, tracker, arguments=arguments, choose=choose, use_guide=True).run()
    return tracker.candidates()


class _GapDescent(Descent):
    """Keeps the iterate that passes with the smallest joint gap."""

    def _judge(self, rows: Tensor, evaluation: Evaluation) -> None:
        assert isinstance(self._arguments, SecondOpinionArguments)
        batch = self._task.select(rows)
        gap = worst_gap(evaluation, batch).detach()
        passed = evaluation.score <= self._task.threshold - self._arguments.detector_margin
        above = FLAGGED + (evaluation.score - self._task.threshold).clamp_min(0.0)
        self._tracker.succeed(rows, passed & (gap <= 0), self._tracker.steps)
        key = joint_gap(evaluation, batch).detach().clamp(-FLAGGED, FLAGGED)
        self._tracker.offer(rows, evaluation.images.detach(), torch.where(passed, key, above))
        if self._arguments.return_early:
            self._tracker.finish(rows, passed & (gap <= -self._arguments.goal))


def gaps(evaluation: Evaluation, batch: AdaptiveTask) -> Tensor:
    """Measure how far each network is from what the attacker wants.

    Args:
        evaluation: Made with the guide.
        batch: Of the same rows.

    Returns:
        Shape ``(N, 2)``, in standard deviations of clean pictures: the similarity that is missing to the level from
        which clean pictures are found to show the guide's person; without targets the similarity above it.
    """
    assert isinstance(batch.guide, SimilarityGuide)
    assert evaluation.description is not None
    similarity = functional.cosine_similarity(evaluation.description, batch.guide.values, dim=2)
    level, spread = batch.guide.levels.unbind(dim=2)
    missing = (level - similarity) / spread
    return missing if batch.targets is not None else -missing


def joint_gap(evaluation: Evaluation, batch: AdaptiveTask) -> Tensor:
    """Join the gaps of both networks in a way that gives either a gradient.

    Args:
        evaluation: Made with the guide.
        batch: Of the same rows.

    Returns:
        Shape ``(N,)``: a smooth maximum, since both must find the same person; without targets a smooth minimum, since
        one that does not is enough.
    """
    found = gaps(evaluation, batch)
    return torch.logsumexp(found, dim=1) if batch.targets is not None else -torch.logsumexp(-found, dim=1)


def worst_gap(evaluation: Evaluation, batch: AdaptiveTask) -> Tensor:
    """Give the gap that decides.

    Args:
        evaluation: Made with the guide.
        batch: Of the same rows.

    Returns:
        Shape ``(N,)``: the larger gap, without targets the smaller one; the gate is fooled where it is at most 0.
    """
    found = gaps(evaluation, batch)
    return found.amax(dim=1) if batch.targets is not None else found.amin(dim=1)
