"""Block ``face_recognition``: verification and identification of faces."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from adv_detect.fields import LARGEST, Block, Count, Once, Rate
from adv_detect.names import GATE_DETECTOR


class FacePairsParams(Block):
    """The pairs of 1:1 verification, read from a file or drawn from the images."""

    source: Literal["file", "drawn"] = "drawn"
    number: int = Field(600, ge=2, le=LARGEST, multiple_of=2)
    folds: int = Field(10, ge=2, le=LARGEST)

    @model_validator(mode="after")
    def _folds_hold_pairs(self) -> FacePairsParams:
        if self.source == "drawn" and self.number < 2 * self.folds:
            raise ValueError(
                f"number: expected at least {2 * self.folds}, a pair of each kind for each of {self.folds} folds, got "
                f"{self.number}"
            )
        return self


GateForm = Literal["detector", "similarity", "both"]


class GateParams(Block):
    """Verification behind a detector, behind the twin's opinion on the similarity, or behind both."""

    far: Rate = 0.01
    fprs: Annotated[tuple[Rate, ...], Field(min_length=1), Once] = (0.01, 0.05)
    forms: Annotated[tuple[GateForm, ...], Field(min_length=1), Once] = ("detector",)
    served: GateForm = "detector"
    detector: str | None = None

    @property
    def asks_twin(self) -> bool:
        """Tell whether the twin is asked for the similarity."""
        return any(form != GATE_DETECTOR for form in (*self.forms, self.served))


class FaceRecognitionParams(Block):
    """Verification and identification, clean and attacked."""

    pairs: FacePairsParams = FacePairsParams()
    mirror: bool = False
    fars: Annotated[tuple[Rate, ...], Once] = (0.1, 0.01, 0.001)
    thresholds: Annotated[tuple[Literal["accuracy", "eer"] | Rate, ...], Field(min_length=1), Once] = (
        "accuracy",
        "eer",
        0.001,
    )
    galleries: Annotated[tuple[Literal["medoid", "centroid", "images"], ...], Field(min_length=1), Once] = (
        "medoid",
        "images",
    )
    neighbours: Count = 1
    metric: Literal["euclidean", "cosine"] = "euclidean"
    engine: Literal["sklearn", "faiss"] = "sklearn"
    gate: GateParams = GateParams()
