"""Block ``monitoring``: the watch over a log of scored images."""

from __future__ import annotations

from pydantic import Field

from adv_detect.fields import Block, Count, PositiveNumber, Rate


class MonitoringParams(Block):
    """Place and spans of the log, and the levels of the alarms."""

    log: str | None = None
    hours: PositiveNumber = 24.0
    level: Rate = 0.001
    near: float = Field(0.03, ge=0, le=0.5)
    copies: Count = 20
