"""Block ``splits`` of ``parameters.yml``: division of the attacked images into splits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from adv_detect.fields import LARGEST, Block, Rate


class SplitParams(Block):
    """Shares of the splits of the attacked images, divided by source image or by identity."""

    train: Rate = 0.5
    validation: Rate = 0.2
    test: Rate = 0.3
    by: Literal["source", "identity"] = "source"
    max_images: int | None = Field(None, ge=3, le=LARGEST)

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitParams:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"expected train + validation + test = 1, got {total:g}")
        return self
