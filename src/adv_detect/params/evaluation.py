"""Block ``evaluation``: evaluation of detectors."""

from __future__ import annotations

import math

from pydantic import Field, field_validator, model_validator

from adv_detect.fields import LARGEST, Block, Rate, check_names
from adv_detect.names import UNCHANGED
from adv_detect.params.image_changes import BenignChangeParams

FEWEST_TAILS = 1.0
"""Resamples that lie outside an interval, on average: with fewer its bounds are not measured."""


class EvaluationParams(Block):
    """Measurements and figures of the evaluation."""

    fprs: tuple[Rate, ...] = (0.01, 0.03, 0.05, 0.10)
    bootstrap: int = Field(1000, ge=0, le=1_000_000)
    confidence_level: float = Field(0.95, ge=0.5, le=0.999)
    show_class: int = Field(0, ge=0, le=LARGEST)
    show_examples: int = Field(6, ge=1, le=20)
    benign_changes: dict[str, BenignChangeParams | None] = Field(default_factory=dict)

    @property
    def active_benign_changes(self) -> dict[str, BenignChangeParams]:
        """The changes that are not null, in configured order."""
        return {name: one for name, one in self.benign_changes.items() if one is not None}

    @field_validator("benign_changes")
    @classmethod
    def _names_are_usable(cls, changes: dict[str, BenignChangeParams | None]) -> dict[str, BenignChangeParams | None]:
        check_names(changes, reserved=(UNCHANGED,))
        return changes

    @model_validator(mode="after")
    def _bounds_can_be_measured(self) -> EvaluationParams:
        least = math.ceil(FEWEST_TAILS / (1 - self.confidence_level) - 1e-6)
        if 0 < self.bootstrap < least:
            raise ValueError(
                f"bootstrap: expected 0 (no intervals) or at least {least} resamples for confidence_level "
                f"{self.confidence_level:g}, got {self.bootstrap}"
            )
        return self

    @model_validator(mode="after")
    def _rates_can_be_shown(self) -> EvaluationParams:
        percents = {f"{100 * fpr:.6g}" for fpr in self.fprs}
        if len(percents) < len(self.fprs) or not {"1", "5"} <= percents:
            raise ValueError(f"fprs: expected rates each once, 0.01 and 0.05 among them, got {list(self.fprs)}")
        return self
