"""Adversarial training of the twin, a second network for the same task."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from adv_detect.fields import Arguments, Block, Once, PositiveNumber
from adv_detect.params.network import PreprocessingParams
from adv_detect.params.target_training import NetworkFitParams

SAME = "same"
"""Name of the twin that is a copy of the network under attack."""

TwinLoss = Literal["softmax", "one_vs_all"]


class TwinNetworkParams(Block):
    """The architecture of the twin: a registered name, a dotted path, or ``same``."""

    name: str = "strided"
    arguments: Arguments = Field(default_factory=dict)
    checkpoint: str | None = None
    output: str | int | None = None
    preprocessing: PreprocessingParams | None = None

    @model_validator(mode="after")
    def _a_copy_takes_nothing(self) -> TwinNetworkParams:
        stated = [name for name in ("arguments", "output", "preprocessing") if getattr(self, name)]
        if self.name == SAME and stated:
            raise ValueError(f"{', '.join(stated)}: not with name: {SAME}, which copies the network under attack")
        return self


class TwinTrainingParams(NetworkFitParams):
    """Adversarial training of the twin; without ``network`` there is none."""

    network: TwinNetworkParams | None = TwinNetworkParams()
    epochs: int = Field(40, ge=0, le=100_000)
    losses: Annotated[tuple[TwinLoss, ...], Field(min_length=1), Once] = ("softmax",)
    method: Literal["pgd", "trades", "fast"] = "pgd"
    norm: Literal["linf", "l2"] = "linf"
    epsilon: PositiveNumber = 0.3
    steps: int = Field(8, ge=1, le=10_000)
    relative_step: PositiveNumber | None = None
    ramp: float = Field(0.33, ge=0, le=1)
    ramp_steps: bool = False
    beta: PositiveNumber = 6.0
    averaging: float = Field(0.0, ge=0, lt=1)
    frozen_statistics: bool = False
    holdout: int = Field(300, ge=0, le=100_000)
    holdout_steps: int = Field(10, ge=1, le=10_000)
    min_accuracy: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _one_can_be_chosen(self) -> TwinTrainingParams:
        if len(self.losses) > 1 and not self.holdout:
            raise ValueError(f"losses: {list(self.losses)} are compared on the images of holdout, got holdout: 0")
        if not self.epochs and len(self.losses) > 1:
            raise ValueError(f"losses: with epochs: 0 nothing is trained, got {list(self.losses)}; name one")
        if self.method == "trades" and "one_vs_all" in self.losses:
            raise ValueError("losses: method: trades compares class distributions, so it takes softmax only")
        return self
