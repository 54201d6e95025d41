"""Losses of classifier and detector, and their gradients with respect to the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from adv_detect.algorithms.attacks.adaptive.geometry import linf_norms
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, EndToEndModel, EvadableModel, class_margin
from adv_detect.algorithms.finite import per_row
from adv_detect.errors import ConfigurationError

ClassifierLoss = Literal["margin", "hinge", "cross_entropy"]
Selection = Literal["reference", "correct"]
"""Published form of an attack, or the one that counts the detector to the end."""

REFERENCE_THRESHOLD = 0.0
"""The published forms let a detector probability below 0.5 pass, which is a logit below 0."""

ZERO_GRADIENT = 1e-20
"""A gradient whose largest entry is below this counts as absent."""

CLASSIFIER, DETECTOR = 0, 1
"""Columns of the counts of gradient evaluations."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One forward pass over the current iterates.

    Attributes:
        images: The iterates, requiring grad, ``(N, channels, H, W)``.
        class_logits: Shape ``(N, C)``.
        detector_logits: Shape ``(N,)``.
        evasions: How far the parts of the detector logit lie above the threshold, as if the network named the class
            aimed at, ``(N, M)``: the detector passes where none does.
        description: Trajectories or features to compare with the guide; None where no guide is used.
        margin: Class margin without gradient, ``(N,)``, positive where the attack succeeds.
    """

    images: Tensor
    class_logits: Tensor
    detector_logits: Tensor
    evasions: Tensor
    description: Tensor | None
    margin: Tensor

    @property
    def score(self) -> Tensor:
        """Detector logits without gradient, ``(N,)``."""
        return self.detector_logits.detach()

    @property
    def evasion(self) -> Tensor:
        """The largest of the evasions, ``(N,)``."""
        return self.evasions.amax(dim=1)


@dataclass(frozen=True, kw_only=True)
class Direction:
    """Direction in which the loss grows, and the gradient evaluations it cost.

    Attributes:
        values: Shape ``(N, channels, H, W)``, at any scale; the attack steps against it.
        evaluated: Gradient evaluations of classifier and detector, int64, ``(N, 2)``.
        zero: How many of them gave no gradient, int64, ``(N, 2)``.
    """

    values: Tensor
    evaluated: Tensor
    zero: Tensor


def evaluate(
    model: EndToEndModel, images: Tensor, task: AdaptiveTask, *, use_guide: bool = False, aims: Tensor | None = None
) -> Evaluation:
    """Run the model on a detached copy of ``images`` that requires grad.

    Args:
        model: Images to class and detector logits; one whose detector says how it is best attacked is asked for that.
        images: Shape ``(N, channels, H, W)``.
        task: Its rows belong to ``images``.
        aims: Classes under whose names the detector is to pass the images, int64, ``(N,)``; None for the targets, and
            without these for the classes that the network names.
        use_guide: Ask the guide's model instead, for the description too.

    Raises:
        ConfigurationError: A guide is wanted and the task has none.
    """
    leaf = images.detach().requires_grad_(True)
    description: Tensor | None = None
    if use_guide:
        if task.guide is None:
            raise ConfigurationError("guide: this attack moves images towards a guide, got none; give the task a guide")
        if task.guide.evade is not None:
            class_logits, detector_logits, description, parts = task.guide.evade(leaf, task.targets)
        else:
            class_logits, detector_logits, description = task.guide.describe(leaf)
            parts = detector_logits[:, None]
    elif isinstance(model, EvadableModel):
        class_logits, detector_logits, parts = model.evade(leaf, task.targets if aims is None else aims)
    else:
        class_logits, detector_logits = model(leaf)
        parts = detector_logits[:, None]
    return Evaluation(
        images=leaf,
        class_logits=class_logits,
        detector_logits=detector_logits,
        evasions=parts - task.threshold,
        description=description,
        margin=class_margin(class_logits.detach(), task),
    )


def parts_under(model: EndToEndModel, images: Tensor, aims: Tensor) -> Tensor:
    """Give the parts of the detector logits as if the network named certain classes, without the rest where it can be.

    Args:
        model: Images to class and detector logits.
        images: Shape ``(N, channels, H, W)``.
        aims: The classes, int64, ``(N,)``.

    Returns:
        Shape ``(N, M)``; the detector logits as they are where the model cannot tell.
    """
    return model.parts_as(images, aims) if isinstance(model, EvadableModel) else model(images)[1][:, None]


def classifier_loss(class_logits: Tensor, task: AdaptiveTask, kind: ClassifierLoss, confidence: float) -> Tensor:
    """Compute what an attacker of the classifier minimises.

    Args:
        class_logits: Shape ``(N, C)``.
        task: Gives labels and targets.
        kind: ``margin``: minus the class margin; ``hinge``: the same, constant beyond ``confidence``
            (Carlini and Wagner 2017, f6); ``cross_entropy``: to the target, or minus that to the label.
        confidence: Margin at which the hinge is satisfied.

    Returns:
        Loss per image, ``(N,)``.
    """
    if kind == "cross_entropy":
        if task.targets is not None:
            return functional.cross_entropy(class_logits, task.targets, reduction="none")
        return -functional.cross_entropy(class_logits, task.labels, reduction="none")
    margin = class_margin(class_logits, task)
    return -margin if kind == "margin" else (confidence - margin).clamp_min(0.0)


def detector_loss(detector_logits: Tensor, threshold: float, selection: Selection) -> Tensor:
    """Compute the detector's cross entropy to "authentic".

    Args:
        detector_logits: Shape ``(N,)``.
        threshold: Detector logit above which an image is called adversarial; the ``correct`` form aims at it, the
            published one at a probability of 0.5.
        selection: Form of the attack.

    Returns:
        Loss per image, ``(N,)``.
    """
    return functional.softplus(detector_logits - (threshold if selection == "correct" else REFERENCE_THRESHOLD))


def raw_gradient(loss: Tensor, images: Tensor, *, keep_graph: bool = False) -> Tensor:
    """Differentiate a loss per image.

    Args:
        loss: Shape ``(N,)``; a loss that does not depend on the images has gradient 0.
        images: Shape ``(N, channels, H, W)``.
        keep_graph: Another gradient is taken from the same forward pass.

    Returns:
        Gradient ``(N, channels, H, W)``; entries that are not finite count as 0.
    """
    raw = None
    if loss.requires_grad:
        (raw,) = torch.autograd.grad(loss.sum(), images, retain_graph=keep_graph, allow_unused=True)
    if raw is None:
        return torch.zeros_like(images)
    return raw.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def unit_gradient(loss: Tensor, images: Tensor, *, keep_graph: bool = False) -> tuple[Tensor, Tensor]:
    """Differentiate a loss per image and scale each row so that its largest entry is 1.

    Without its scale a tiny gradient neither underflows in a norm nor passes for an absent one.

    Args:
        loss: Shape ``(N,)``.
        images: Shape ``(N, channels, H, W)``.
        keep_graph: Another gradient is taken from the same forward pass.

    Returns:
        Gradient ``(N, channels, H, W)`` and whether it is absent, bool ``(N,)``.
    """
    raw = raw_gradient(loss, images, keep_graph=keep_graph)
    largest = linf_norms(raw)
    absent = largest <= ZERO_GRADIENT
    scale = torch.where(absent, 0.0, 1.0 / largest.clamp_min(ZERO_GRADIENT))
    return raw * per_row(scale, raw), absent


def is_absent(gradients: Tensor) -> Tensor:
    """Tell which rows of gradients ``(N, ...)`` are zero, bool ``(N,)``."""
    return linf_norms(gradients) <= ZERO_GRADIENT


def orthogonal_part(gradients: Tensor, others: Tensor) -> Tensor:
    """Remove from each row of ``gradients`` its component along the same row of ``others``.

    Args:
        gradients: Shape ``(N, ...)``.
        others: Shape ``(N, ...)``; an all-zero row removes nothing.

    Returns:
        Shape ``(N, ...)``; its inner product with ``others`` is 0 per row.
    """
    inner = (gradients * others).flatten(1).sum(dim=1)
    square = others.flatten(1).square().sum(dim=1)
    share = torch.where(square > 0, inner / square.clamp_min(ZERO_GRADIENT), torch.zeros_like(inner))
    return gradients - per_row(share, gradients) * others


def counts(column: Tensor | int, absent: Tensor) -> tuple[Tensor, Tensor]:
    """Count one gradient evaluation per image.

    Args:
        column: ``CLASSIFIER`` or ``DETECTOR``, for all images or per image ``(N,)``.
        absent: Whether it gave no gradient, bool ``(N,)``.

    Returns:
        Evaluations and absent gradients, int64 ``(N, 2)`` each.
    """
    columns = torch.as_tensor(column, device=absent.device).expand(len(absent))
    evaluated = functional.one_hot(columns.long(), num_classes=2)
    return evaluated, evaluated * absent[:, None]
