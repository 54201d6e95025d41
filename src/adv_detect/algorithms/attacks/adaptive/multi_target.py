"""Network and detector attacked together, towards every class, with step sizes that find themselves.

Source of momentum and step sizes: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020. Departures: two losses with moving weights in place of one, and starting
points of three kinds, see :mod:`adv_detect.algorithms.attacks.adaptive.joint_descent`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from adv_detect.algorithms.attacks.adaptive.joint_descent import JointDescent, JointDescentArguments
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, Candidates, EndToEndModel, EvadableModel
from adv_detect.algorithms.attacks.adaptive.tracker import Tracker
from adv_detect.fields import Count

Targets = Literal["all"] | Annotated[int, Field(ge=1)]


class MultiTargetArguments(JointDescentArguments):
    """Arguments of the multi-target attack.

    Attributes:
        targets: ``all`` other classes, or so many of them: those under whose name the detector comes nearest to passing
            the clean image.
        rows: Pairs of image and target class attacked at once; bounds the memory.
    """

    targets: Targets = "all"
    rows: Count = 512


def multi_target(model: EndToEndModel, task: AdaptiveTask, arguments: MultiTargetArguments) -> Candidates:
    """Attack towards all target classes at once, from one starting point after the other.

    Args:
        model: Images to class and detector logits; an :class:`EvadableModel` is asked for the scores under other names.
        task: What to attack; targets of its own are the only ones.
        arguments: Steps, restarts, target classes.

    Returns:
        Per image the misclassified iterate with the lowest detector logit, and the steps per target class after which
        it first got through.
    """
    tracker = Tracker(task)
    aims = rank_targets(model, task, arguments.targets)
    at_once = max(1, arguments.rows // aims.shape[1])
    for rows in torch.split(torch.arange(len(task), device=task.images.device), at_once):
        for restart in range(arguments.restarts):
            left = rows[~tracker.done[rows]]
            if len(left):
                JointDescent(model, task, tracker, arguments=arguments, restart=restart).run(left, aims[left])
    return tracker.candidates()


@torch.no_grad()
def rank_targets(model: EndToEndModel, task: AdaptiveTask, targets: Targets) -> Tensor:
    """Choose the classes to aim at, those nearest to the clean image first.

    Args:
        model: As for the attack.
        task: Targets of its own are the only ones.
        targets: ``all`` other classes, or how many.

    Returns:
        Classes, int64, ``(N, K)``: ordered by the score under their name, then by the network's logit.
    """
    if task.targets is not None:
        return task.targets[:, None]
    if isinstance(model, EvadableModel):
        logits, scores = model.scores_by_class(task.images)
    else:
        logits, _ = model(task.images)
        scores = torch.zeros_like(logits)
    by_logit = logits.argsort(dim=1, descending=True, stable=True)
    order = by_logit.gather(1, scores.gather(1, by_logit).argsort(dim=1, stable=True))
    others = order[order != task.labels[:, None]].reshape(len(task), -1)
    return others if targets == "all" else others[:, :targets]
