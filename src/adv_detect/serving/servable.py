"""The form of what can be registered and served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd
from numpy.typing import NDArray

from adv_detect.algorithms.detectors.end_to_end import DetectionModel

if TYPE_CHECKING:
    from adv_detect.serving.bundle import ScoringBundle


class Servable(Protocol):
    """Something that can be registered and served: a scoring bundle, or one for pairs of pictures."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Facts on the model, as of :class:`ScoringBundle`."""

    @property
    def gate(self) -> ScoringBundle:
        """Network, representatives and detector."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""

    @property
    def rates(self) -> tuple[str, ...]:
        """Names of the rates that a request may give; the metadata hold the defaults."""

    def model(self) -> DetectionModel:
        """Join network and detector."""

    def score(
        self,
        images: NDArray[Any],
        rates: Mapping[str, float],
        *,
        model: DetectionModel | None = None,
        unwanted: Callable[[], bool] = ...,
    ) -> pd.DataFrame:
        """Give a row per input, at the rates asked for."""

    def save(self, folder: Path) -> None:
        """Write into an existing folder."""
