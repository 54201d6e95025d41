"""Arguments of the detectors that read several descriptions of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from adv_detect.algorithms.detectors.base import Reads
from adv_detect.algorithms.image_changes import argument_faults
from adv_detect.errors import ConfigurationError
from adv_detect.fields import Block, Count, Names, Rate

OneClassModel = Literal["gaussian", "class_gaussian", "neighbours"]
KindT = TypeVar("KindT", bound="DescriptionArguments")


class DescriptionArguments(Block):
    """Parts of the description of an image.

    ``top_k`` classes of the ranking count in distances and gaps, ``neighbours`` of clean images in each layer (0 reads
    none); of more than ``references`` clean images so many are drawn.
    """

    distances: bool = True
    top_k: int = Field(10, ge=2, le=1000)
    logit_gaps: bool = True
    neighbours: int = Field(10, ge=0, le=1000)
    references: Count = 2000
    views: Names = ()

    @model_validator(mode="after")
    def _neighbours_are_among_references(self) -> DescriptionArguments:
        if self.neighbours >= self.references:
            raise ValueError(f"neighbours: expected fewer than the {self.references} references, got {self.neighbours}")
        return self

    @model_validator(mode="after")
    def _something_is_read(self) -> DescriptionArguments:
        if not (self.distances or self.logit_gaps or self.neighbours or self.views):
            raise ValueError(
                "expected at least one of distances, logit_gaps, neighbours and views to be read, got none"
            )
        return self

    @property
    def reads_layers(self) -> bool:
        """Tell whether the features of layers are read."""
        return self.distances or self.neighbours > 0

    @property
    def reads(self) -> Reads:
        """Say which activations are read."""
        return Reads(layers=self.reads_layers, views=self.views)

    @property
    def clean_needed(self) -> int:
        """Clean images that are needed at least: one more than neighbours, since none is its own."""
        return self.neighbours + 1 if self.neighbours else 0


class DensityArguments(DescriptionArguments):
    """Arguments of ``density``."""

    model: OneClassModel = "class_gaussian"
    density_neighbours: Count = 5

    @property
    def clean_needed(self) -> int:
        """As above, and as many as the model looks for neighbours among."""
        return max(super().clean_needed, self.density_neighbours if self.model == "neighbours" else 1)


class ConsistencyArguments(DensityArguments):
    """Arguments of ``view-consistency``: views, and nothing else."""

    distances: Literal[False] = False
    logit_gaps: Literal[False] = False
    neighbours: Literal[0] = 0
    views: Annotated[Names, Field(min_length=1)]
    model: OneClassModel = "neighbours"


class MultiviewArguments(DescriptionArguments):
    """Arguments of ``multiview``.

    In a ``cascade`` a first read-out sees no views. It decides alone below the score under which a share
    ``sure_clean`` of clean validation images lies, and above that which a share ``sure_attacked`` exceeds.
    """

    readout: Literal["mlp", "lstm"] = "mlp"
    hidden: int = Field(100, ge=1, le=4096)
    cascade: bool = False
    sure_clean: Rate = 0.7
    sure_attacked: Rate = 0.01

    @model_validator(mode="after")
    def _cascade_fits(self) -> MultiviewArguments:
        if self.cascade and (not self.views or not (self.reads_layers or self.logit_gaps)):
            raise ValueError("cascade: expected views, and something to read before them, got one of the two")
        if self.readout == "lstm" and not self.reads_layers:
            raise ValueError("readout: an lstm walks through layers; expected distances or neighbours to be read")
        if self.sure_clean + self.sure_attacked >= 1:
            raise ValueError(
                f"sure_clean, sure_attacked: expected a sum below 1, got {self.sure_clean:g} and {self.sure_attacked:g}"
            )
        return self


def parse_arguments(kind: type[KindT], arguments: Mapping[str, Any]) -> KindT:
    """Check the arguments of a configuration.

    Args:
        kind: What they must be.
        arguments: As configured.

    Returns:
        The same with all defaults.

    Raises:
        ConfigurationError: One cannot be used.
    """
    try:
        return kind.model_validate(dict(arguments))
    except ValidationError as exc:
        raise ConfigurationError(f"arguments: {argument_faults(exc)}") from exc
