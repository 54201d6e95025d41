"""Perturbations that raise a loss, and the losses of adversarial training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Head = Literal["softmax", "one_vs_all"]
"""Meaning of logits: one distribution over all classes, or a yes or no for each class by itself."""

SMALLEST_NORM = 1e-12


def log_probabilities(logits: Tensor, head: Head) -> Tensor:
    """Return the logarithm of the probability of each class, shape ``(N, C)`` as the logits."""
    return functional.log_softmax(logits, dim=1) if head == "softmax" else functional.logsigmoid(logits)


def best_wrong_class(log_probability: Tensor, classes: Tensor) -> Tensor:
    """Return the largest log-probability ``(N,)`` among the classes other than the given ones ``(N,)``."""
    return log_probability.scatter(1, classes[:, None], -torch.inf).amax(dim=1)


def wrong_class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Sum ``-log(1 - p)`` over the classes other than the given ones, each class by itself; shape ``(N,)``."""
    return functional.softplus(logits).scatter(1, classes[:, None], 0.0).sum(dim=1)


def one_vs_all_loss(clean: Tensor, perturbed: Tensor, classes: Tensor) -> Tensor:
    """Class-conditional detection: the own class is to accept clean images, the others are to refuse perturbed ones.

    An image is perturbed only for the classes that are to refuse it, as in asymmetrical adversarial training (Yin,
    Kolouri, Rohde: "GAT: Generative Adversarial Training for Adversarial Example Detection and Robust Classification",
    ICLR 2020), here for all classes at once.

    Args:
        clean: Logits ``(N, C)`` of clean images.
        perturbed: Logits ``(N, C)`` of perturbed ones.
        classes: Classes ``(N,)``.

    Returns:
        The mean over images.
    """
    own = functional.softplus(-clean.gather(1, classes[:, None])).squeeze(1)
    others = wrong_class_loss(clean, classes) + wrong_class_loss(perturbed, classes)
    return (own + others / 2).mean()


def trades_loss(clean: Tensor, perturbed: Tensor, classes: Tensor, beta: float) -> Tensor:
    """Cross-entropy of clean images, and ``beta`` times the divergence of perturbed ones from them.

    Source: Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", ICML 2019, equation 5.

    Args:
        clean: Logits ``(N, C)`` of clean images.
        perturbed: Logits ``(N, C)`` of perturbed ones.
        classes: Classes ``(N,)``.
        beta: Weight of robustness.

    Returns:
        The mean over images.
    """
    return functional.cross_entropy(clean, classes) + beta * divergence(clean, perturbed) / len(clean)


def divergence(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Sum the Kullback-Leibler divergence of the perturbed from the clean class distributions over images."""
    return functional.kl_div(
        functional.log_softmax(perturbed, dim=1), functional.log_softmax(clean, dim=1), reduction="sum", log_target=True
    )


def perturb(
    images: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    norm: Literal["linf", "l2"],
    epsilon: float,
    steps: int,
    step: float,
    bounds: tuple[float, float],
) -> Tensor:
    """Raise a loss by projected gradient ascent from a random start; draws come from the global generator.

    Args:
        images: Clean images ``(N, channels, H, W)`` within ``bounds``.
        loss: Maps images to the sum of their losses.
        norm: ``linf`` or ``l2``.
        epsilon: Radius of the ball around each image; 0 gives the images back.
        steps: Number of gradients.
        step: Length of a step in that norm.
        bounds: Lowest and highest pixel value.

    Returns:
        Images within the ball and the bounds, without a graph.
    """
    if epsilon <= 0:
        return images.detach()
    move, start, project = (_signs, _random_signs, None) if norm == "linf" else (_unit, _random_unit, _project)
    low, high = (images - epsilon).clamp_(min=bounds[0]), (images + epsilon).clamp_(max=bounds[1])
    if norm == "l2":
        low, high = torch.full_like(images, bounds[0]), torch.full_like(images, bounds[1])
    changed = torch.clamp(start(images) * epsilon + images, low, high)
    for _ in range(steps):
        changed.requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(changed), changed)
        with torch.no_grad():
            changed = changed.detach().add_(move(gradient), alpha=step)
            if project is not None:
                changed = project(changed, images, epsilon)
            changed = torch.clamp(changed, low, high, out=changed)
    return changed.detach()


@contextmanager
def attacked(network: nn.Module) -> Iterator[nn.Module]:
    """Put a network into evaluation mode without parameter gradients, for attacks on it; both come back afterwards.

    Args:
        network: Any module.

    Yields:
        The same module.
    """
    learning = [one for one in network.parameters() if one.requires_grad]
    moods = [(one, one.training) for one in network.modules()]
    network.eval().requires_grad_(False)
    try:
        yield network
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, training in moods:
            module.training = training


def _signs(gradient: Tensor) -> Tensor:
    return gradient.sign_()


def _random_signs(images: Tensor) -> Tensor:
    return torch.rand_like(images).mul_(2).sub_(1)


def _unit(gradient: Tensor) -> Tensor:
    return gradient / _lengths(gradient)


def _random_unit(images: Tensor) -> Tensor:
    """Draw directions at random, lengths uniform in [0, 1]."""
    return _unit(torch.randn_like(images)) * torch.rand(len(images), 1, 1, 1, device=images.device)


def _project(changed: Tensor, images: Tensor, epsilon: float) -> Tensor:
    offset = changed - images
    return images + offset * (epsilon / _lengths(offset)).clamp_(max=1.0)


def _lengths(values: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return lengths.clamp(min=SMALLEST_NORM).view(-1, 1, 1, 1)
