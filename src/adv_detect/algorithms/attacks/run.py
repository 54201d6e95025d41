"""One call for every attack: checks its input, isolates its randomness and judges what comes back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn

from adv_detect.algorithms.attacks.configured import ConfiguredAttack, Runner
from adv_detect.algorithms.attacks.perturbations import norms_of
from adv_detect.algorithms.attacks.result import AttackContext, AttackResult
from adv_detect.algorithms.finite import finite_rows, replace_rows
from adv_detect.errors import AttackError

LOGGER = logging.getLogger(__name__)
NUMPY_SEEDS = 2**32
SEARCHING: tuple[Runner, ...] = ("carlini_wagner", "minimal_norm")
"""Attacks that search for the smallest perturbation and keep no epsilon by themselves."""
MOST_REPEATS = 3
"""How often a batch is attacked again without the images that turned out to have no finite numbers."""


@dataclass(frozen=True)
class AttackTask:
    """Network, images and aims of an attack.

    Attributes:
        network: Frozen network in evaluation mode; maps images to logits.
        images: Source images ``(N, channels, H, W)`` within ``bounds``.
        labels: True classes, int64 ``(N,)``.
        targets: Classes aimed at, int64 ``(N,)``; None for untargeted.
        bounds: Lowest and highest pixel value.
        seed: Seed of everything random.
        context: Class representatives, for attacks on features.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    targets: Tensor | None
    bounds: tuple[float, float]
    seed: int
    context: AttackContext | None

    def select(self, rows: Tensor) -> AttackTask:
        """Return the task for some images, int64 positions ``(n,)``."""
        targets = None if self.targets is None else self.targets[rows]
        return replace(self, images=self.images[rows], labels=self.labels[rows], targets=targets)


def run_attack(
    attack: ConfiguredAttack,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    targets: Tensor | None = None,
    bounds: tuple[float, float],
    seed: int,
    context: AttackContext | None = None,
) -> AttackResult:
    """Attack one batch of images that the network classifies correctly.

    Args:
        attack: From ``build_attack``.
        network: Network in evaluation mode, parameters frozen; its forward pass gives logits ``(N, C)``.
        images: Source images ``(N, channels, H, W)``, float32, within ``bounds``; not changed.
        labels: True classes, int64 ``(N,)``.
        targets: Classes to reach, int64 ``(N,)``, none equal to its label; None for an untargeted attack.
        bounds: Lowest and highest pixel value of the network.
        seed: The result depends on it and on the input alone; global generators are left as they were.
        context: Class representatives and layer names; the deep-features attack needs it.

    Returns:
        A result on the images' device. A failure keeps the attack's last image; attacks that search for the
        smallest perturbation give back the source, and so do all where a gradient, a logit or a pixel became NaN or
        infinite (``non_finite``). Such an image does not change what becomes of the others.

    Raises:
        ValueError: The network is not frozen or in training mode, or the images, labels or targets do not fit.
        AttackError: The attack cannot work with this criterion.
    """
    task = AttackTask(network, images.detach(), labels, targets, bounds, seed, context)
    _check_network(network)
    _check_images(task)
    with _isolated_randomness(seed, images.device), torch.enable_grad():
        return RUNNERS[attack.runner](attack, task)


def _gradient(attack: ConfiguredAttack, task: AttackTask) -> AttackResult:
    from adv_detect.algorithms.attacks.foolbox_model import CountingModel
    from adv_detect.algorithms.attacks.gradient import run_gradient_attack

    if attack.epsilon is None:
        raise ValueError(f"attack {attack.name!r}: expected an epsilon, got None; build it with build_attack")
    return run_gradient_attack(
        attack.instance,
        CountingModel(task.network, task.bounds, task.images.device),
        task.images,
        task.labels if task.targets is None else task.targets,
        targeted=task.targets is not None,
        epsilon=attack.epsilon,
        return_early=attack.return_early,
    )


def _search(attack: ConfiguredAttack, task: AttackTask) -> AttackResult:
    from adv_detect.algorithms.attacks.foolbox_model import CountingModel

    model = CountingModel(task.network, task.bounds, task.images.device)
    classes = task.labels if task.targets is None else task.targets
    result = attack.instance.search(model, task.images, classes, targeted=task.targets is not None)
    return _judged(attack, task, result)


def _foolbox(attack: ConfiguredAttack, task: AttackTask) -> AttackResult:
    """Attack a batch, and the sound images once more by themselves where others had no finite numbers.

    Many attacks of foolbox add up or compare over the batch, where one NaN decides for all.
    """
    result = _foolbox_once(attack, task)
    for _ in range(MOST_REPEATS):
        broken = result.non_finite
        rows = (~broken).nonzero().flatten()
        if not bool(broken.any()) or not len(rows):
            break
        again = _foolbox_once(attack, task.select(rows))
        result = _with_rows(result, rows, again)
        if not bool(again.non_finite.any()):
            break
    return _judged(attack, task, result)


def _foolbox_once(attack: ConfiguredAttack, task: AttackTask) -> AttackResult:
    from adv_detect.algorithms.attacks.foolbox_model import CountingModel, make_criterion

    model = CountingModel(task.network, task.bounds, task.images.device)
    model.watch(len(task.images))
    criterion = make_criterion(task.labels, task.targets)
    more = {"context": _context(attack, task)} if attack.needs_representatives else {}
    try:
        _, images, success = attack.instance(model, task.images.clone(), criterion, epsilons=attack.epsilon, **more)
    except ValueError as exc:
        kind = "untargeted" if task.targets is None else "targeted"
        raise AttackError(f"attack {attack.name!r} failed on a batch ({kind}): {exc}") from exc
    finite = finite_rows(images)
    broken = ~finite | model.broken
    unusable = ~finite | _blacked_out(images, task.images)
    images = replace_rows(images, task.images, unusable).clamp(*task.bounds).detach()
    evaluations = _divide(model.gradient_rows, task.labels)
    return AttackResult(images, success & finite, task.labels, evaluations, broken)


def _with_rows(whole: AttackResult, rows: Tensor, part: AttackResult) -> AttackResult:
    """Put the results of some images in the place of their former ones; what was spent adds up."""
    values = {one.name: getattr(whole, one.name).clone() for one in fields(whole)}
    for name, value in values.items():
        own = getattr(part, name)
        value[rows] = own + value[rows] if name == "gradient_evaluations" else own
    return AttackResult(**values)


def _deep_features(attack: ConfiguredAttack, task: AttackTask) -> AttackResult:
    from adv_detect.algorithms.attacks.deep_features import run_deep_features

    context = _context(attack, task)
    return run_deep_features(
        attack.arguments,
        task.network,
        task.images,
        task.labels,
        targets=task.targets,
        bounds=task.bounds,
        seed=task.seed,
        context=context,
        return_early=attack.return_early,
    )


def _context(attack: ConfiguredAttack, task: AttackTask) -> AttackContext:
    if task.context is None:
        raise ValueError(
            f"attack {attack.name!r}: expected class representatives in context, got None; pass an AttackContext"
        )
    return task.context


RUNNERS: dict[Runner, Callable[[ConfiguredAttack, AttackTask], AttackResult]] = {
    "gradient": _gradient,
    "carlini_wagner": _search,
    "minimal_norm": _search,
    "foolbox": _foolbox,
    "deep_features": _deep_features,
}


def _judged(attack: ConfiguredAttack, task: AttackTask, result: AttackResult) -> AttackResult:
    """Believe a success only if it is changed, fools the network and keeps epsilon; else give back the source."""
    changed = (result.images != task.images).flatten(1).any(dim=1)
    claimed = result.success & changed
    if attack.epsilon is not None and attack.norm is not None and attack.runner in SEARCHING:
        claimed &= norms_of(result.images - task.images, attack.norm) <= attack.epsilon
    restored = result.success & ~claimed
    if bool(restored.any()):
        LOGGER.warning(
            "attack %s calls %d of %d images a success that equal their source or leave epsilon; counted as failures",
            attack.name, int(restored.sum()), len(restored),
        )  # fmt: skip
    images = replace_rows(result.images, task.images, restored)
    with torch.no_grad():
        logits = task.network(images)
    predicted = logits.argmax(dim=1)
    fooled = predicted != task.labels if task.targets is None else predicted == task.targets
    success = claimed & fooled & finite_rows(logits)
    broken = (result.non_finite | ~finite_rows(logits)) & ~success
    images = replace_rows(images, task.images, broken)
    return replace(result, images=images, success=success, adversarial_class=predicted, non_finite=broken)


def _blacked_out(images: Tensor, sources: Tensor) -> Tensor:
    """Find rows that are all zero although their source is not: some foolbox attacks give these where they fail."""
    return ~images.flatten(1).any(dim=1) & sources.flatten(1).any(dim=1)


def _divide(total: int, labels: Tensor) -> Tensor:
    """Divide a count evenly over the images, int64 ``(N,)``; the first ones carry the rest."""
    positions = torch.arange(len(labels), device=labels.device)
    return total // len(labels) + (positions < total % len(labels)).to(torch.int64)


def _check_network(network: nn.Module) -> None:
    if any(module.training for module in network.modules()):
        raise ValueError("expected a network in evaluation mode, got training mode; call network.eval() first")
    if any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError("expected frozen parameters, got trainable ones; call network.requires_grad_(False) first")


def _check_images(task: AttackTask) -> None:
    images, labels, (low, high) = task.images, task.labels, task.bounds
    if images.ndim != 4 or not len(images) or labels.shape != (len(images),):
        raise ValueError(
            f"expected images (N, channels, H, W) and labels (N,) with N > 0, got {tuple(images.shape)} "
            f"and {tuple(labels.shape)}"
        )
    if not bool((images >= low).all()) or not bool((images <= high).all()):
        raise ValueError(
            f"expected images within bounds [{low:g}, {high:g}], got {float(images.min()):g} to {float(images.max()):g}"
        )
    if task.targets is None:
        return
    if task.targets.shape != labels.shape:
        raise ValueError(f"expected targets of shape {tuple(labels.shape)}, got {tuple(task.targets.shape)}")
    if bool((task.targets == labels).any()):
        rows = (task.targets == labels).nonzero().flatten().tolist()
        raise ValueError(f"expected targets other than the labels, got the label itself in {len(rows)} rows {rows[:5]}")


@contextmanager
def _isolated_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators that foolbox draws from, and put them back afterwards."""
    cuda = device.type == "cuda"
    numpy_state = np.random.get_state()
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        np.random.seed(seed % NUMPY_SEEDS)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
