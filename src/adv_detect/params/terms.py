"""Values that several blocks share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adv_detect.fields import Once, PositiveNumber

Criterion = Literal["targeted", "untargeted"]

Split = Literal["train", "validation", "test"]

Norm = Literal["l1", "l2", "linf"]

Representative = Literal["medoid", "centroid"]

Distance = Literal["euclidean", "cosine", "mahalanobis"]

ClassOrder = Literal["fixed", "ranked"]

AttackForm = Literal["early", "confident"]

LearnsFromTerm = Literal["nothing", "clean", "attacks"]

TrajectoryKind = Literal["lstm", "bilstm", "mlp"]
"""Kinds of detectors that read trajectories."""

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

Criteria = Annotated[tuple[Criterion, ...], Field(min_length=1), Once]

TrainedCriteria = Annotated[tuple[Literal["targeted", "untargeted", "both"], ...], Field(min_length=1), Once]

Budgets = Annotated[
    dict[Literal["l2", "linf"], Annotated[tuple[PositiveNumber, ...], Field(min_length=1), Once]], Field(min_length=1)
]
