"""The form of what can be registered and served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd
from numpy.typing import NDArray

from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.pictures.inputs import CHANNELS

VERSION = "version"
"""In the metadata of a model that is served: name and version that answers carry."""

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

    @property
    def switches(self) -> tuple[str, ...]:
        """Names of the truth values that a request may give; absent means false."""

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
        """Give a row per input, at the rates asked for, which hold the switches as well."""

    def save(self, folder: Path) -> None:
        """Write into an existing folder."""


def takes_pictures(bundle: Servable) -> bool:
    """Tell whether one input is a picture, so that an encoded one can stand for it; pairs are none.

    Args:
        bundle: What is served.
    """
    shape = tuple(bundle.gate.network.spec.image_shape)
    return tuple(bundle.input_shape) == shape and shape[0] in CHANNELS


def with_version(table: pd.DataFrame, metadata: Mapping[str, Any]) -> pd.DataFrame:
    """Add the model's version to scores, where it is known.

    Args:
        table: A row per input.
        metadata: Facts on the model.

    Returns:
        The table, with ``model_version`` where the metadata hold a version.
    """
    return table.assign(model_version=metadata[VERSION]) if VERSION in metadata else table
