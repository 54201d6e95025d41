"""The contract of all detectors: activations of images to one score per image, higher = more likely adversarial."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.scoring import SCORE_BLOCK, score_in_blocks
from adv_detect.errors import DataError
from adv_detect.params import DetectorFitParams, DetectorParams

FitHistory = list[dict[str, float]]
"""One entry per epoch, figures by name; empty for what is fitted in one go."""


class LearnsFrom(StrEnum):
    """Images that a detector is fitted on."""

    NOTHING = "nothing"
    CLEAN = "clean"
    ATTACKS = "attacks"


@dataclass(frozen=True)
class Reads:
    """Parts of the activations that a detector reads; the logits are always there.

    Attributes:
        layers: Whether it reads the features of the layers.
        views: Names of the views whose logits it reads.
        twin: Whether it reads what the second network, the twin, says of the image.
    """

    layers: bool = True
    views: tuple[str, ...] = ()
    twin: bool = False

    def __or__(self, other: Reads) -> Reads:
        """Return what two detectors read together."""
        views = tuple(dict.fromkeys((*self.views, *other.views)))
        return Reads(self.layers or other.layers, views, self.twin or other.twin)


@dataclass(frozen=True)
class FitData:
    """Images to learn from and images to choose by.

    Attributes:
        clean: Natural images to learn from.
        attacked: Successful attacks to learn from; None for detectors that learn from clean images.
        validation_clean: Natural images to choose by, of other sources.
        validation_attacked: Successful attacks on those.
        params: Settings of an iterative optimisation.
        device: Where to train.
    """

    clean: Activations
    attacked: Activations | None
    validation_clean: Activations
    validation_attacked: Activations | None
    params: DetectorFitParams = field(default_factory=DetectorFitParams)
    device: str = "cpu"


class Detector(nn.Module):
    """Scores images by what the network said about them; higher = more likely adversarial.

    A detector is constructed with the class representatives of the network under attack (which name its layers,
    their widths and its classes) and the ``arguments`` of its configuration. Its fitted state lies in parameters and
    buffers: it is stored as their state dict. The shapes of parameters must follow from the arguments of the
    constructor; a buffer may be of any size after :meth:`fit`, as one that holds images to compare with is.

    Attributes:
        learns_from: What :meth:`fit` needs.
        reads: Parts of the activations that :meth:`forward` reads.
        differentiable: Whether an attack may follow the gradient of the score to the images.
        clean_needed: Natural images that :meth:`fit` needs at least.
    """

    learns_from: ClassVar[LearnsFrom] = LearnsFrom.CLEAN
    reads: Reads = Reads()
    differentiable: ClassVar[bool] = True
    clean_needed: int = 0

    @classmethod
    def members_of(cls, arguments: Mapping[str, Any]) -> dict[str, DetectorParams]:
        """Return the configurations of detectors that this one is made of, by name; none by default."""
        return {}

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> tuple[LearnsFrom, Reads]:
        """Say what a detector with these arguments learns from and reads, before there is anything to build it from.

        Args:
            arguments: As the constructor takes them.

        Returns:
            The attributes of the class, unless a subclass derives them from the arguments.
        """
        return cls.learns_from, cls.reads

    @classmethod
    def needs_confident(cls, arguments: Mapping[str, Any]) -> bool:
        """Tell whether a detector made with some arguments reads the decision boundary itself.

        Learned from attacks that stop at the boundary, such a one takes nearness to it for the attack, and passes
        attacks that go on: it is refused without confident attacks in training.

        Args:
            arguments: Those of its configuration.

        Returns:
            Whether it does; by default not.
        """
        return False

    @abstractmethod
    def forward(self, activations: Activations) -> Tensor:
        """Score images.

        Args:
            activations: Of N images, on the device of the detector.

        Returns:
            Scores ``(N,)``, finite; higher = more likely adversarial. Any scale.
        """

    def fit(self, clean: Activations, attacked: Activations | None, *, seed: int) -> FitHistory:
        """Learn from images of the train split.

        Args:
            clean: Natural images.
            attacked: Successful attacks; None for a detector that learns from clean images.
            seed: Decides everything random; the global random state stays as it is.

        Returns:
            Training curves.
        """
        if self.learns_from is LearnsFrom.NOTHING:
            return []
        raise NotImplementedError(f"{type(self).__name__}: a detector that learns needs a method fit")

    def fit_chosen(self, data: FitData, *, seed: int) -> FitHistory:
        """Learn from images of the train split and choose by those of the validation split.

        Args:
            data: Both; a detector that has nothing to choose leaves the second aside.
            seed: As in :meth:`fit`.

        Returns:
            Training curves.
        """
        return self.fit(data.clean, data.attacked, seed=seed)

    def needs_views(self, activations: Activations) -> Tensor | None:
        """Tell for which images the views are read, from activations without views.

        Args:
            activations: Of N images.

        Returns:
            Bool ``(N,)``; None, the default, where they are read for all. The score of the others must not depend on
            them.
        """
        return None

    def forward_passes(self, activations: Activations) -> float:
        """Count the forward passes that an image costs on average.

        Args:
            activations: Of N images.

        Returns:
            1 for the image itself, and 1 for each view that is read, averaged over the images.
        """
        with torch.no_grad():
            needing = self.needs_views(activations)
        share = 1.0 if needing is None or not len(needing) else float(needing.float().mean())
        return 1.0 + share * len(self.reads.views)

    def score_as(self, activations: Activations, targets: Tensor, *, scores: Tensor) -> Tensor:
        """Score images as if the network named other classes: what an attack on the detector brings down.

        By default the score as it is. A detector that asks about the class that the network names, such as a second
        opinion, says here what it would answer about the attacker's.

        Args:
            activations: Of N images, with gradients to the images.
            targets: Classes that the attacker wants the network to name, int64, ``(N,)``.
            scores: What :meth:`forward` gives for these activations, ``(N,)``.

        Returns:
            Scores ``(N,)``, those of :meth:`forward` wherever the network names the target.
        """
        return scores

    def score_parts(self, activations: Activations, targets: Tensor, *, scores: Tensor) -> Tensor:
        """Give the parts of which :meth:`score_as` is the largest: an attack brings down each of them.

        Args:
            activations: Of N images.
            targets: Classes that the attacker wants the network to name, int64, ``(N,)``.
            scores: What :meth:`forward` gives for these activations, ``(N,)``.

        Returns:
            Shape ``(N, M)``, on the scale of the scores; by default the one score.
        """
        return self.score_as(activations, targets, scores=scores)[:, None]

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Let the buffers take the sizes of a stored state, before it is read into them.

        Args:
            state: Fitted state, by name.
        """
        for place, module in self.named_modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                stored = state.get(f"{place}.{name}" if place else name)
                if stored is not None and stored.dim() == buffer.dim() and stored.shape != buffer.shape:
                    setattr(module, name, torch.empty_like(stored, device=buffer.device))

    def describe(self, activations: Activations) -> Tensor:
        """Give what an attack must make look natural: by default all features of all layers.

        Args:
            activations: Of N images.

        Returns:
            Shape ``(N, ...)``, comparable between images.
        """
        return torch.cat([part.flatten(1) for part in activations.features.values()], dim=1)


def score_activations(detector: nn.Module, activations: Activations, *, block: int = SCORE_BLOCK) -> Tensor:
    """Score any number of images in evaluation mode, without gradients, block by block.

    Args:
        detector: The detector; its training mode is restored afterwards.
        activations: Of N images, on any device: blocks move to the detector's.
        block: Images scored at once; bounds the memory.

    Returns:
        Scores ``(N,)`` on the CPU.

    Raises:
        DataError: The detector gives something other than one finite score per image.
    """
    parts = [activations] if len(activations) <= block else activations.blocks(block)
    scores = score_in_blocks(detector, parts)
    if scores.shape != (len(activations),) or not bool(torch.isfinite(scores).all()):
        raise DataError(
            f"expected {len(activations)} finite scores, one per image, from {type(detector).__name__}, got shape "
            f"{tuple(scores.shape)} with {int((~torch.isfinite(scores)).sum())} values that are not finite"
        )
    return scores
