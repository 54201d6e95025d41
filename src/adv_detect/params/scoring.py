"""Block ``scoring``: which pictures are scored, by which model, at which rates."""

from __future__ import annotations

from pydantic import Field, model_validator

from adv_detect.fields import Block, Rate


class ScoringParams(Block):
    """Scoring of a user's own pictures; a score above the threshold of ``reject`` or ``review`` says which verdict."""

    images: str | None = None
    column: str = Field("path", min_length=1)
    model: str = Field("champion", min_length=1)
    other_environments: bool = False
    review: Rate = 0.05
    reject: Rate = 0.01
    show: int = Field(12, ge=0, le=1000)

    @model_validator(mode="after")
    def _rejected_are_rarer(self) -> ScoringParams:
        if self.reject >= self.review:
            raise ValueError(
                f"reject: expected a rate below that of review, {self.review:g}, got {self.reject:g}; clean pictures "
                "are rejected more rarely than they are reviewed"
            )
        return self
