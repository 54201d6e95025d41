"""Attacks made on a substitute and judged on the victim."""

from __future__ import annotations

from dataclasses import replace

import torch

from adv_detect.algorithms.attacks.adaptive.run import DEFAULT_BATCH_SIZE, RunnableAttack, judge, run_adaptive_attack
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveResult, AdaptiveTask, Candidates, EndToEndModel, Guide


def run_transfer_attack(
    attack: RunnableAttack,
    substitute: EndToEndModel,
    victim: EndToEndModel,
    task: AdaptiveTask,
    *,
    substitute_threshold: float,
    substitute_guide: Guide | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> AdaptiveResult:
    """Attack a substitute network with its detector, and show the images to the victim.

    An attack that stops at the substitute's boundary transfers badly: use ``return_early: false`` and a
    ``confidence``.

    Args:
        attack: From :func:`build_adaptive_attack`.
        substitute: Independently trained; images to class and detector logits.
        victim: The model under attack.
        task: What to attack; its threshold is the victim's.
        substitute_threshold: Detector logit above which the substitute calls an image adversarial.
        substitute_guide: Guide described by the substitute, for matching attacks.
        batch_size: Images attacked at once.

    Returns:
        The outcome per image as the victim sees it; gradient evaluations are the substitute's, and the share of
        zero gradients is 0 because none of the victim's was used.
    """
    on_substitute = replace(task, threshold=substitute_threshold, guide=substitute_guide)
    made = run_adaptive_attack(attack, substitute, on_substitute, batch_size=batch_size)
    candidates = Candidates(
        images=made.images,
        gradient_evaluations=made.gradient_evaluations,
        zero_gradient_share=torch.zeros_like(made.zero_gradient_share),
    )
    return judge(victim, candidates, task, batch_size=batch_size)
