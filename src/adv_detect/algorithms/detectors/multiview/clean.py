"""Detectors that learn from clean images only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector, FitHistory, LearnsFrom, Reads
from adv_detect.algorithms.detectors.multiview.arguments import (
    ConsistencyArguments,
    DensityArguments,
    parse_arguments,
)
from adv_detect.algorithms.detectors.multiview.description import Description
from adv_detect.algorithms.detectors.multiview.one_class import OneClass
from adv_detect.algorithms.representatives import Representatives


class DensityDetector(Detector):
    """Distance of an image's description from those of clean images.

    The description holds ranked, whitened distances, ranked logit gaps and the neighbours' labels.

    Attributes:
        description: Activations to ``(N, F)``.
        model: Descriptions to scores.
    """

    learns_from = LearnsFrom.CLEAN
    accepts: ClassVar[type[DensityArguments]] = DensityArguments

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> tuple[LearnsFrom, Reads]:
        """Say that it learns from clean images, and what it reads."""
        return cls.learns_from, parse_arguments(cls.accepts, arguments).reads

    def __init__(self, representatives: Representatives, **arguments: Any) -> None:
        """Prepare description and model.

        Args:
            representatives: Class representatives of the network under attack.
            **arguments: See :class:`DensityArguments`.
        """
        super().__init__()
        parsed = parse_arguments(self.accepts, arguments)
        self.reads, self.clean_needed = parsed.reads, parsed.clean_needed
        self.description = Description(representatives, parsed)
        self.model = OneClass(
            self.description.width,
            len(representatives.class_names),
            parsed.model,
            k=parsed.density_neighbours,
            references=parsed.references,
        )

    def fit(self, clean: Activations, attacked: Activations | None, *, seed: int) -> FitHistory:
        """Learn what descriptions of clean images look like; attacks are not read."""
        own = clean.unchanged()
        self.description.fit(own, seed=seed)
        self.model.fit(self.description(clean, others=True), clean.logits.argmax(dim=1), seed=seed)
        return []

    def forward(self, activations: Activations) -> Tensor:
        """Score images, ``(N,)``."""
        scores: Tensor = self.model(self.description(activations), activations.logits.argmax(dim=1))
        return scores

    def describe(self, activations: Activations) -> Tensor:
        """Give the description ``(N, F)``."""
        found: Tensor = self.description(activations)
        return found


class ViewConsistencyDetector(DensityDetector):
    """Distance of the changes that views make to the logits from those of clean images."""

    accepts = ConsistencyArguments
