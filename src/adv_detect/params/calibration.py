"""Block ``calibration``: thresholds from clean images of one's own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adv_detect.fields import Block, Once, Rate


class CalibrationParams(Block):
    """Clean pictures, rates and what becomes of the new version."""

    images: str | None = None
    column: str = Field("path", min_length=1)
    fprs: Annotated[tuple[Rate, ...], Field(min_length=1), Once] | None = None
    promote: bool | Literal["anyway"] = False
