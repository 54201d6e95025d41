"""A detector that reads distances, logit gaps, neighbours and views together, learned from attacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector, FitData, FitHistory, LearnsFrom, Reads
from adv_detect.algorithms.detectors.multiview.arguments import MultiviewArguments, parse_arguments
from adv_detect.algorithms.detectors.multiview.description import Description
from adv_detect.algorithms.detectors.multiview.readouts import DescriptionReadout, build_joined
from adv_detect.algorithms.detectors.scoring import score_in_blocks
from adv_detect.algorithms.detectors.trajectory.detector import held_out, recurrent_gradients
from adv_detect.algorithms.detectors.trajectory.sampling import TrajectorySet, side_weights
from adv_detect.algorithms.detectors.trajectory.training import fit_module
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import DataError
from adv_detect.names import NATURAL

NO_ATTACKS = "a multiview detector learns from attacks, got none; give attacked images"


class MultiviewDetector(Detector):
    """One read-out of all that the activations say of an image, whatever the number of classes.

    With a cascade, a first read-out sees no views. Where its score says clean or attacked for sure it stands, and views
    are read for the rest.

    Attributes:
        arguments: What is read and how.
        description: Activations to ``(N, F)``.
        readout: Descriptions to logits.
        first: The read-out without views; None without a cascade.
        sure: Scores of the first read-out that bound the unsure ones, ``(2,)``.
    """

    learns_from = LearnsFrom.ATTACKS
    sure: Tensor

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> tuple[LearnsFrom, Reads]:
        """Say that it learns from attacks, and what it reads."""
        return cls.learns_from, parse_arguments(MultiviewArguments, arguments).reads

    @classmethod
    def needs_confident(cls, arguments: Mapping[str, Any]) -> bool:
        """Tell whether it reads the decision boundary, in gaps or views."""
        parsed = parse_arguments(MultiviewArguments, arguments)
        return parsed.logit_gaps or bool(parsed.views)

    def __init__(self, representatives: Representatives, **arguments: Any) -> None:
        """Prepare description and read-outs.

        Args:
            representatives: Class representatives of the network under attack.
            **arguments: See :class:`MultiviewArguments`.
        """
        super().__init__()
        self.arguments = parse_arguments(MultiviewArguments, arguments)
        self.reads, self.clean_needed = self.arguments.reads, self.arguments.clean_needed
        self.description = Description(representatives, self.arguments)
        self.readout = self._fresh(views=True, seed=0)
        self.first = self._fresh(views=False, seed=0) if self.arguments.cascade else None
        self.register_buffer("sure", torch.zeros(2))

    def forward(self, activations: Activations) -> Tensor:
        """Score images, ``(N,)``."""
        if self.first is None:
            return self._score(self.readout, self.description(activations))
        described = self.description(activations)
        cheap = self._score(self.first, described[:, : self.description.cheap])
        return join_scores(cheap, self._score(self.readout, described), self.sure)

    def needs_views(self, activations: Activations) -> Tensor | None:
        """Tell for which images the views are read: those of which the first read-out is not sure."""
        if self.first is None:
            return None
        cheap = self._score(self.first, self.description(activations, views=False))
        return (cheap >= self.sure[0]) & (cheap <= self.sure[1])

    def describe(self, activations: Activations) -> Tensor:
        """Give the description ``(N, F)``."""
        found: Tensor = self.description(activations)
        return found

    def fit(self, clean: Activations, attacked: Activations | None, *, seed: int) -> FitHistory:
        """Learn with every fifth image held back to choose the epoch by."""
        if attacked is None:
            raise DataError(NO_ATTACKS)
        (clean_train, clean_held), (attacked_train, attacked_held) = held_out(clean), held_out(attacked)
        return self.fit_chosen(FitData(clean_train, attacked_train, clean_held, attacked_held), seed=seed)

    def fit_chosen(self, data: FitData, *, seed: int) -> FitHistory:
        """Learn from the train images and keep the epoch that does best on the validation images."""
        self.description.fit(data.clean.unchanged(), seed=seed)
        train = self._labelled(data.clean, data.attacked, others=True)
        validation = self._labelled(data.validation_clean, data.validation_attacked, others=False)
        self.readout, history = self._fit_readout(train, validation, data, views=True, seed=seed)
        if self.first is not None:
            self.first, further = self._fit_readout(train, validation, data, views=False, seed=seed)
            history = [*further, *history]
            self._fix_sure(data.validation_clean.unchanged())
        return history

    def _fit_readout(
        self, train: TrajectorySet, validation: TrajectorySet, data: FitData, *, views: bool, seed: int
    ) -> tuple[DescriptionReadout, FitHistory]:
        width = self.description.width if views else self.description.cheap
        parts = [
            TrajectorySet(one.trajectories[:, :, :width], one.adversarial, one.group) for one in (train, validation)
        ]
        readout = self._fresh(views=views, seed=seed)
        fitted = fit_module(readout, *parts, fit=data.params, seed=seed, device=data.device, weigh=side_weights)
        return readout, fitted.history

    def _fix_sure(self, clean: Activations) -> None:
        """Take the two bounds from clean validation images."""
        assert self.first is not None
        with torch.no_grad():
            described = self.description(clean, views=False)
        scores = score_in_blocks(self.first, [described[:, None]])
        shares = torch.tensor([self.arguments.sure_clean, 1 - self.arguments.sure_attacked])
        self.sure.copy_(scores.quantile(shares.to(scores)))

    def _labelled(self, clean: Activations, attacked: Activations | None, *, others: bool) -> TrajectorySet:
        if attacked is None:
            raise DataError(NO_ATTACKS)
        with torch.no_grad():
            rows = torch.cat([self.description(one, others=others) for one in (clean, attacked)])
        groups = [*(clean.groups or (NATURAL,) * len(clean)), *(attacked.groups or ("attack",) * len(attacked))]
        return TrajectorySet(rows[:, None], torch.arange(len(rows)) >= len(clean), groups)

    def _score(self, readout: DescriptionReadout, described: Tensor) -> Tensor:
        rows = described[:, None]
        with recurrent_gradients(rows, readout):
            scores: Tensor = readout(rows)
        return scores

    def _fresh(self, *, views: bool, seed: int) -> DescriptionReadout:
        chosen = self.arguments
        return build_joined(chosen.readout, self.description, hidden=chosen.hidden, views=views, seed=seed)


def join_scores(cheap: Tensor, full: Tensor, sure: Tensor) -> Tensor:
    """Put scores of two read-outs into one order.

    Both are logits learned from the same rows with the same weights: log-odds, which compare. Scores that were cut off
    from each other, all surely attacked images above all unsure ones, would put the few clean images that the first
    read-out is wrong about above every attack that the second has found.

    Args:
        cheap: Of the first read-out, ``(N,)``.
        full: Of the second, ``(N,)``; read only where the first is not sure.
        sure: Bounds of the first, ``(2,)``: below the one surely clean, above the other surely attacked.

    Returns:
        Shape ``(N,)``: ``full`` where not sure, else ``cheap``.
    """
    return torch.where((cheap < sure[0]) | (cheap > sure[1]), cheap, full)
