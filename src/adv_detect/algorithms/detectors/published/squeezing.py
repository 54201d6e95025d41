"""Feature squeezing: how far the softmax of an image moves when the image is simplified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector, LearnsFrom, Reads
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError, DataError

PUBLISHED_BITS = {"mnist": 1, "cifar10": 5, "imagenet": 5}
"""Published bit depths; beside them stand a median of 2 x 2 pixels and, in colour, non-local means (13-3-2, 11-3-4)."""
SQUEEZERS = ("bit-depth-4", "median-3")
"""Views read by default: those of the base configuration that are squeezers (a median needs a middle: 3 x 3)."""


class SqueezingDetector(Detector):
    """Largest L1 distance between the softmax of the image and that of its squeezed views.

    Source: Xu et al., "Feature squeezing: detecting adversarial examples in deep neural networks", NDSS 2018
    (arXiv 1704.01155), section 5. The squeezers are views of the configuration; a median of 2 x 2 pixels and non-local
    means are not among the kinds of views, but may be functions of one's own.

    Attributes:
        views: Names of the views read.
    """

    learns_from = LearnsFrom.NOTHING

    def __init__(self, representatives: Representatives | None = None, views: str | Sequence[str] = SQUEEZERS) -> None:
        """Take the names of the views.

        Args:
            representatives: As every detector does; they are not read.
            views: At least one name of ``detector_training.views``; a single one may stand alone.

        Raises:
            ConfigurationError: There is no view.
        """
        super().__init__()
        if not _names(views):
            raise ConfigurationError(f"views: expected the names of at least one view, got {views!r}")
        self.views = _names(views)
        self.reads = Reads(layers=False, views=self.views)

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> tuple[LearnsFrom, Reads]:
        """Say which views a detector with these arguments reads; it learns nothing."""
        return cls.learns_from, Reads(layers=False, views=_names(arguments.get("views", SQUEEZERS)))

    def forward(self, activations: Activations) -> Tensor:
        """Score images, in [0, 2], ``(N,)``."""
        missing = [name for name in self.views if name not in activations.views]
        if missing:
            raise DataError(
                f"activations: expected the views {list(self.views)}, missing are {missing}; configure them in "
                "detector_training.views"
            )
        said = activations.logits.softmax(dim=1)
        moved = [(said - activations.views[name].softmax(dim=1)).abs().sum(dim=1) for name in self.views]
        return torch.stack(moved).amax(dim=0)


def _names(views: Any) -> tuple[str, ...]:
    if isinstance(views, str):
        return (views,)
    return tuple(str(one) for one in views) if isinstance(views, Sequence) else ()
