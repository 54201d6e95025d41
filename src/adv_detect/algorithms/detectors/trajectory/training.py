"""Training of one detector on labelled trajectories."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau

from adv_detect.algorithms.detectors.trajectory.readout import TrajectoryReadout, score_trajectories
from adv_detect.algorithms.detectors.trajectory.registry import build_readout
from adv_detect.algorithms.detectors.trajectory.sampling import TrajectorySet, alike, balanced_draw
from adv_detect.algorithms.roc import area, split_scores, to_array
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.names import NATURAL
from adv_detect.params import DetectorFitParams, DetectorParams

__all__ = ["FittedReadout", "TrajectorySet", "fit_readout", "macro_auc"]

Weigh = Callable[[Tensor, Tensor, int], Tensor]
"""Group ids ``(N,)``, which rows are adversarial, and the id of natural images, to weights ``(N,)``."""
LR_FACTOR = 0.5
"""What the learning rate is multiplied by when the validation loss stalls."""


@dataclass(frozen=True)
class FittedReadout:
    """A trained detector and how it got there.

    Attributes:
        detector: With the weights of the best epoch, on the CPU, in evaluation mode.
        history: One entry per epoch: ``train_loss``, ``validation_loss``, ``validation_macro_auc`` and
            ``learning_rate`` (of that epoch).
        best_epoch: Index into ``history`` of the epoch whose weights were kept.
        validation_macro_auc: Mean over the attacks of the AUC against all naturals, at the best epoch.
    """

    detector: TrajectoryReadout
    history: list[dict[str, float]]
    best_epoch: int
    validation_macro_auc: float


def fit_readout(
    train: TrajectorySet,
    validation: TrajectorySet,
    *,
    params: DetectorParams,
    fit: DetectorFitParams,
    seed: int,
    device: torch.device | str = "cpu",
    accumulation: int = 1,
) -> FittedReadout:
    """Train a detector to tell adversarial from natural trajectories.

    Binary cross-entropy with Adam on draws that give every attack and the naturals the same weight; as many draws
    an epoch as there are rows. The learning rate halves when the validation loss (every group weighted equally)
    stalls. Kept are the weights with the best validation macro-AUC, of equals the one with the lower validation
    loss; training ends early when the macro-AUC has not risen for ``fit.stop_patience`` epochs.

    Source: Massoli et al., Computer Vision and Image Understanding 2021 (arXiv 1912.02918). Added here are the
    standardisation of the distances (on the training rows), the equal weights in the validation loss and the
    early end.

    Args:
        train: Rows to learn from, of at least one natural and one adversarial.
        validation: Rows to choose by, likewise; from other source images.
        params: Kind and width of the detector.
        fit: Optimisation.
        seed: Decides initial weights, draws and dropout. The global random state stays as it is.
        device: Where to train; the data moves there whole.
        accumulation: Batches whose gradients are averaged before a step.

    Returns:
        The trained detector with its history. On the CPU two runs agree bit by bit.

    Raises:
        DataError: Train or validation lacks naturals or adversarials, or their trajectories' shapes differ.
        ConfigurationError: ``accumulation`` is below 1.
    """
    _check_sets(train, validation)
    _, layers, classes = train.trajectories.shape
    detector = build_readout(params, layers=layers, classes=classes, seed=seed)
    return fit_module(detector, train, validation, fit=fit, seed=seed, device=device, accumulation=accumulation)


def fit_module(
    detector: TrajectoryReadout,
    train: TrajectorySet,
    validation: TrajectorySet,
    *,
    fit: DetectorFitParams,
    seed: int,
    device: torch.device | str = "cpu",
    accumulation: int = 1,
    weigh: Weigh = alike,
) -> FittedReadout:
    """Train a read-out that is there already, as :func:`fit_readout` does.

    Args:
        detector: Fresh; it is trained in place.
        train: Rows to learn from.
        validation: Rows to choose by.
        fit: Optimisation.
        seed: Decides draws and dropout.
        device: Where to train.
        accumulation: Batches whose gradients are averaged before a step.
        weigh: Weights of rows, in draws and in the validation loss.

    Returns:
        The same read-out, trained, with its history.
    """
    _check_sets(train, validation)
    if accumulation < 1:
        raise ConfigurationError(f"accumulation: expected at least 1 batch, got {accumulation}")
    place = torch.device(device)
    detector.fit_standardisation(train.trajectories)
    with _dropout_seed(seed, place):
        rows = _Rows.of(train, place, weigh), _Rows.of(validation, place, weigh)
        run = _Run(detector.to(place), *rows, fit=fit, seed=seed, accumulation=accumulation)
        while not run.finished:
            run.epoch()
    return run.result()


def macro_auc(scores: Tensor, groups: Sequence[str] | Tensor, *, adversarial: Tensor | None = None) -> float:
    """Average, over the attacks, the exact AUC of an attack's rows against all natural rows.

    Args:
        scores: Shape (N,), no NaN; compared as they are, without a sigmoid.
        groups: Attack of each row, ``natural`` for clean images; N names or integers.
        adversarial: Shape (N,), bool; None means every row whose group is not ``natural``.

    Returns:
        In [0, 1]; every attack counts the same.

    Raises:
        DataError: A score is NaN, or naturals or adversarials are missing.
    """
    names = to_array(groups)
    attacked = names != NATURAL if adversarial is None else to_array(adversarial)
    positives, negatives = split_scores(scores, attacked)
    return float(np.mean([area(positives[names[attacked] == name], negatives) for name in np.unique(names[attacked])]))


@dataclass(frozen=True)
class _Rows:
    """A trajectory set on the training device; targets are 1 for adversarial."""

    trajectories: Tensor
    targets: Tensor
    adversarial: Tensor
    groups: Tensor
    weights: Tensor

    @classmethod
    def of(cls, rows: TrajectorySet, device: torch.device, weigh: Weigh) -> _Rows:
        adversarial = rows.adversarial.to(device)
        groups = rows.group_ids.to(device)
        trajectories = rows.trajectories.to(device, torch.float32)
        weights = weigh(rows.group_ids.cpu(), rows.adversarial.cpu(), rows.natural_id)
        return cls(trajectories, adversarial.float(), adversarial, groups, weights)


@dataclass
class _Best:
    """The best epoch so far."""

    auc: float = -1.0
    loss: float = float("inf")
    epoch: int = -1
    last_rise: int = -1
    weights: dict[str, Tensor] = field(default_factory=dict)


class _Run:
    """State of one training: model, optimiser, schedule, best weights."""

    def __init__(
        self,
        detector: TrajectoryReadout,
        train: _Rows,
        validation: _Rows,
        *,
        fit: DetectorFitParams,
        seed: int,
        accumulation: int,
    ) -> None:
        self.detector, self.train, self.validation, self.fit = detector, train, validation, fit
        self.step_rows = fit.batch_size * accumulation
        self.draws = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.Adam(
            detector.parameters(), lr=fit.learning_rate, weight_decay=fit.weight_decay, fused=True
        )
        self.schedule = ReduceLROnPlateau(
            self.optimizer, factor=LR_FACTOR, patience=fit.lr_patience, min_lr=fit.lr_floor
        )
        self.best = _Best()
        self.history: list[dict[str, float]] = []

    @property
    def finished(self) -> bool:
        """Tell whether all epochs are done or the macro-AUC has stopped rising."""
        done = len(self.history)
        return done >= self.fit.epochs or done - 1 - self.best.last_rise >= self.fit.stop_patience

    def epoch(self) -> None:
        """Train for one epoch, validate, remember the weights if they are the best, adapt the rate."""
        rate = float(self.optimizer.param_groups[0]["lr"])
        train_loss = self._train_epoch()
        loss, auc = self._validate()
        self._keep_if_best(auc, loss)
        self.history.append(
            {"train_loss": train_loss, "validation_loss": loss, "validation_macro_auc": auc, "learning_rate": rate}
        )
        self.schedule.step(loss)

    def result(self) -> FittedReadout:
        """Put the best weights back and hand the detector over."""
        self.detector.load_state_dict(self.best.weights)
        return FittedReadout(self.detector.cpu().eval(), self.history, self.best.epoch, self.best.auc)

    def _train_epoch(self) -> float:
        self.detector.train()
        order = balanced_draw(self.train.weights, self.draws).to(self.train.targets.device)
        total = torch.zeros((), device=order.device)
        for rows in torch.split(order, self.step_rows):
            self.optimizer.zero_grad(set_to_none=True)
            for batch in torch.split(rows, self.fit.batch_size):
                total += self._backward(batch, len(rows))
            self.optimizer.step()
        return float(total) / len(order)

    def _backward(self, batch: Tensor, rows_per_step: int) -> Tensor:
        """Add the gradient of a batch; the summed loss comes back without a wait for the device."""
        logits = self.detector(self.train.trajectories.index_select(0, batch))
        targets = self.train.targets.index_select(0, batch)
        loss = functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        torch.autograd.backward(loss / rows_per_step)
        return loss.detach()

    def _validate(self) -> tuple[float, float]:
        rows = self.validation
        scores = score_trajectories(self.detector, rows.trajectories)
        losses = functional.binary_cross_entropy_with_logits(scores, rows.targets, reduction="none")
        loss = float((losses.cpu().double() * rows.weights).sum())
        return loss, macro_auc(scores, rows.groups, adversarial=rows.adversarial)

    def _keep_if_best(self, auc: float, loss: float) -> None:
        epoch = len(self.history)
        if (auc, -loss) <= (self.best.auc, -self.best.loss):
            return
        last_rise = epoch if auc > self.best.auc else self.best.last_rise
        self.best = _Best(auc, loss, epoch, last_rise, copy.deepcopy(self.detector.state_dict()))


@contextmanager
def _dropout_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generator that dropout draws from, and give it its old state back afterwards."""
    cuda = device.type == "cuda"
    devices = [torch.cuda.current_device() if device.index is None else device.index] if cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for one in devices:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(seed)
        yield


def _check_sets(train: TrajectorySet, validation: TrajectorySet) -> None:
    for name, rows in (("train", train), ("validation", validation)):
        adversarial = int(rows.adversarial.sum())
        for what, count in (("natural", len(rows) - adversarial), ("adversarial", adversarial)):
            if count == 0:
                raise DataError(
                    f"expected natural and adversarial trajectories in the {name} set, got no {what} ones among "
                    f"{len(rows)}; use more images, another split or an attack that succeeds"
                )
    expected, got = train.trajectories.shape[1:], validation.trajectories.shape[1:]
    if expected != got:
        raise DataError(
            f"expected validation trajectories of shape (N, {', '.join(map(str, expected))}) as in train, "
            f"got (N, {', '.join(map(str, got))})"
        )
