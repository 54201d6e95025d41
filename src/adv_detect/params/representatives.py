"""Block ``representatives``: class representatives."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adv_detect.fields import LARGEST, Block, Count


class RepresentativesParams(Block):
    """Medoids, centroids and the whitening of each layer."""

    shrinkage: Literal["ledoit_wolf", "oas"] = "ledoit_wolf"
    shrinkage_samples: int = Field(10_000, ge=2, le=LARGEST)
    memory_budget_mb: Count = 256
