"""Adversarial training of a twin: a second network for the task of the network under attack, hard to mislead."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from adv_detect.algorithms.fitting import Checkpoint, FitSettings, Row, Task, fit_epochs
from adv_detect.algorithms.robust_losses import (
    attacked,
    best_wrong_class,
    divergence,
    log_probabilities,
    one_vs_all_loss,
    perturb,
    trades_loss,
    wrong_class_loss,
)
from adv_detect.algorithms.roc import roc_auc
from adv_detect.images import ImageSet
from adv_detect.networks.frozen import Rewrite, agreeing_rewrites, fast_form, working_form
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import TwinTrainingParams

LOGGER = logging.getLogger(__name__)
TITLE = "twin_training"
SINGLE_STEP = 1.25
"""Length of the one step of ``fast``, relative to epsilon (Wong, Rice, Kolter 2020)."""
TRAVEL = 2.0
"""Sum of the lengths of all steps, relative to epsilon, where none is stated."""
FEWEST_STEPS = 2
BLOCK = 256
"""Held-out images perturbed at once."""
CHOSEN_BY = "held_out_detection"


@dataclass(frozen=True)
class HeldOut:
    """Training images that are kept aside, to choose epoch and loss by.

    Attributes:
        images: Shape ``(N, channels, H, W)``, in the pixel range of the network.
        classes: Their classes ``(N,)``.
    """

    images: Tensor
    classes: Tensor


def fit_twin(
    target: TargetNetwork,
    images: ImageSet,
    held_out: HeldOut | None,
    *,
    params: TwinTrainingParams,
    settings: FitSettings,
    checkpoint: Checkpoint | None = None,
) -> list[Row]:
    """Train a twin on perturbed images; its weights end as those of the best epoch.

    Args:
        target: The twin, whose ``spec.head`` says which loss it is trained with; its weights change.
        images: Training images.
        held_out: Images to choose the epoch by; with none the last epoch is kept.
        params: Attack, loss, optimiser.
        settings: Seed, device, progress.
        checkpoint: Where each epoch is kept, and found again; None keeps nothing.

    Returns:
        One row per epoch, as from :func:`adv_detect.algorithms.fitting.fit_epochs`, and, once epsilon has reached its
        full size, the figures of :func:`measure_robustness` of the held-out images.
    """
    if not params.epochs:
        target.freeze()
        return []
    task = AdversarialTraining(target, params, held_out, settings)
    history = fit_epochs(target, images, task, title=TITLE, params=params, settings=settings, checkpoint=checkpoint)
    task.finish(target)
    return history


class AdversarialTraining(Task):
    """Learns from images perturbed against the network itself.

    Sources: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018 (``pgd``); Zhang
    et al., ICML 2019 (``trades``); Wong, Rice, Kolter, ICLR 2020 (``fast``). Epsilon grows from 0 over the first part
    of the training; of the weights a moving average is kept, which is more robust than the last ones (Gowal et al.,
    "Uncovering the Limits of Adversarial Training against Norm-Bounded Adversarial Examples", 2020).
    """

    def __init__(
        self, target: TargetNetwork, params: TwinTrainingParams, held_out: HeldOut | None, settings: FitSettings
    ) -> None:
        """Start with the weights of the network."""
        self.params, self.held_out, self.settings = params, held_out, settings
        self.head = target.spec.head
        self.average: AveragedModel | None = None
        if params.averaging:
            average = get_ema_multi_avg_fn(params.averaging)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(target.network, settings.device, multi_avg_fn=average)
        self.best: dict[str, Tensor] = {}
        self.best_figure = -math.inf
        self.rewrites: tuple[Rewrite, ...] | None = None
        if params.frozen_statistics:
            with attacked(target.to(settings.device)):
                self.rewrites = agreeing_rewrites(target, settings.device)

    def loss(self, target: TargetNetwork, images: Tensor, classes: Tensor, *, done: float) -> tuple[Tensor, Tensor]:
        """Perturb a batch, then return its loss and the logits of the perturbed images."""
        if self.params.frozen_statistics:
            freeze_statistics(target)
        images = images.contiguous(memory_format=torch.channels_last)
        perturbed = self._perturb(target, images, classes, done)
        if self.params.method != "trades" and self.head == "softmax":
            logits = target(perturbed)
            return functional.cross_entropy(logits, classes), logits
        clean, logits = target(torch.cat([images, perturbed])).chunk(2)
        if self.head == "softmax":
            return trades_loss(clean, logits, classes, self.params.beta), logits
        return one_vs_all_loss(clean, logits, classes), logits

    def after_step(self, target: TargetNetwork) -> None:
        """Move the average towards the weights."""
        if self.average is not None:
            self.average.update_parameters(target.network)

    def after_epoch(self, target: TargetNetwork, *, done: float) -> Row:
        """Measure the held-out images, and keep the weights where they are the best so far."""
        network = target.network if self.average is None else self.average.module
        if self.held_out is None or (done < self.params.ramp and done < 1):
            return {}
        figures = measure_robustness(
            TargetNetwork(target.spec, network).to(self.settings.device), self.held_out, self.params, self.settings
        )
        if figures[CHOSEN_BY] > self.best_figure:
            self.best_figure, self.best = figures[CHOSEN_BY], _copied(network)
        return figures

    def state(self) -> dict[str, Tensor]:
        """Return average and best weights, and the figure of these."""
        tensors = {f"best.{name}": value for name, value in self.best.items()}
        if self.best:
            tensors["best_figure"] = torch.tensor(self.best_figure, dtype=torch.float64)
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        return tensors

    def resume(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""
        self.best = {name.removeprefix("best."): one for name, one in tensors.items() if name.startswith("best.")}
        self.best_figure = float(tensors["best_figure"]) if self.best else -math.inf
        if self.average is not None:
            own = {name.removeprefix("average."): one for name, one in tensors.items() if name.startswith("average.")}
            self.average.load_state_dict(own)

    def finish(self, target: TargetNetwork) -> None:
        """Give a network the best weights; the last average, or the last ones, where no image was held out."""
        if self.best:
            target.network.load_state_dict(self.best)
        elif self.average is not None and int(self.average.n_averaged):
            target.network.load_state_dict(self.average.module.state_dict())

    def _perturb(self, target: TargetNetwork, images: Tensor, classes: Tensor, done: float) -> Tensor:
        params = self.params
        share = min(1.0, done / params.ramp) if params.ramp else 1.0
        steps = 1 if params.method == "fast" else params.steps
        if params.ramp_steps and steps > 1:
            steps = min(steps, max(FEWEST_STEPS, math.ceil(steps * share)))
        with attacked(target):
            network = self._quick(target)
            clean = network(images).detach() if params.method == "trades" else images
            return perturb(
                images,
                partial(self._rise, network, clean, classes),
                norm=params.norm,
                epsilon=params.epsilon * share,
                steps=steps,
                step=relative_step(params, steps) * params.epsilon * share,
                bounds=target.spec.bounds,
            )

    def _quick(self, target: TargetNetwork) -> TargetNetwork:
        """The form in which it is attacked: making it anew after each step pays where it folds normalisations."""
        return target if self.rewrites is None else fast_form(target, rewrites=self.rewrites)

    def _rise(self, target: TargetNetwork, clean: Tensor, classes: Tensor, images: Tensor) -> Tensor:
        """The loss that a perturbation raises, summed over images."""
        logits = target(images)
        if self.head == "one_vs_all":
            return wrong_class_loss(logits, classes).sum()
        if self.params.method == "trades":
            return divergence(clean, logits)
        return functional.cross_entropy(logits, classes, reduction="sum")


def relative_step(params: TwinTrainingParams, steps: int) -> float:
    """Length of a step relative to epsilon: as stated, or such that all together can cross the ball."""
    if params.relative_step is not None:
        return params.relative_step
    return SINGLE_STEP if params.method == "fast" else TRAVEL / steps


def measure_robustness(
    target: TargetNetwork, held_out: HeldOut, params: TwinTrainingParams, settings: FitSettings
) -> Row:
    """Attack images and measure how well the twin holds and how well it detects.

    Each image is moved, within epsilon, to where the twin gives the most to a wrong class: as an attacker must who
    makes the network under attack say that class and the twin agree.

    Args:
        target: The twin.
        held_out: Images that it did not learn from.
        params: Norm, epsilon, steps.
        settings: Seed and device.

    Returns:
        ``held_out_accuracy``, ``held_out_robust_accuracy``, ``held_out_detection``: the area under the ROC curve of
        minus the log-probability of the own class of clean images against that of the best wrong class of attacked
        ones.
    """
    devices = [settings.device] if settings.device.type == "cuda" else []
    clean, moved = [], []
    with torch.random.fork_rng(devices=devices), attacked(target):
        torch.manual_seed(settings.seed)
        quick = working_form(target, settings.device)
        for images, classes in zip(
            torch.split(held_out.images, BLOCK), torch.split(held_out.classes, BLOCK), strict=True
        ):
            near, own = images.to(settings.device), classes.to(settings.device)
            far = perturb(
                near,
                lambda changed, own=own: best_wrong_class(_log_probabilities(quick, changed), own).sum(),  # type: ignore[misc]
                norm=params.norm,
                epsilon=params.epsilon,
                steps=params.holdout_steps,
                step=TRAVEL / params.holdout_steps * params.epsilon,
                bounds=target.spec.bounds,
            )
            with torch.no_grad():
                clean.append(_log_probabilities(quick, near).cpu())
                moved.append(_log_probabilities(quick, far).cpu())
    return _robustness(torch.cat(clean), torch.cat(moved), held_out.classes)


def _robustness(clean: Tensor, moved: Tensor, classes: Tensor) -> Row:
    own, wrong = -clean.gather(1, classes[:, None]).squeeze(1), -best_wrong_class(moved, classes)
    labels = torch.cat([torch.zeros(len(own)), torch.ones(len(wrong))])
    return {
        "held_out_accuracy": float((clean.argmax(dim=1) == classes).float().mean()),
        "held_out_robust_accuracy": float((moved.argmax(dim=1) == classes).float().mean()),
        CHOSEN_BY: float(roc_auc(torch.cat([own, wrong]), labels)),
    }


def _log_probabilities(target: TargetNetwork, images: Tensor) -> Tensor:
    return log_probabilities(target(images), target.spec.head)


def freeze_statistics(network: nn.Module) -> None:
    """Put the batch normalisations of a network into evaluation mode, so that their statistics stay."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
