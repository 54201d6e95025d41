"""Block ``detector_training``: detectors and their training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args

from pydantic import Field, field_validator, model_validator

from adv_detect.fields import Arguments, Block, Count, Decay, LearningRate, Names, Once, Seed, check_names
from adv_detect.names import CONTROLS, EARLY
from adv_detect.params.image_changes import ImageChangeParams
from adv_detect.params.terms import (
    AttackForm,
    ClassOrder,
    Distance,
    LearnsFromTerm,
    Representative,
    TrainedCriteria,
    TrajectoryKind,
)

TRAINING_DATA = ("learns_from", "train_forms", "train_against")
"""Keys of a configuration that say what it learns from, whatever its kind."""


class DetectorParams(Block):
    """One detector configuration: what it is, what it reads and what it learns from."""

    kind: str = "lstm"
    """Registered name, or the dotted path of a detector class of one's own, which takes arguments. The keys from
    representative to hidden are for lstm, bilstm and mlp, which read trajectories.
    """
    representative: Representative = "medoid"
    """What stands for a class: its medoid, or its centroid."""
    distance: Distance = "cosine"
    """Of features to the representatives; mahalanobis is whitened."""
    order: ClassOrder = "fixed"
    """Of the classes in the trajectory: as in the data, or ranked by the network's own logits."""
    top_k: Count | None = None
    """Classes kept with order: ranked; null = all."""
    hidden: int = Field(100, ge=1, le=4096)
    """Width of the hidden layer."""
    arguments: Arguments = Field(default_factory=dict)
    """What the class takes."""
    learns_from: LearnsFromTerm | None = None
    """Says once more what the kind learns from, for the reader; another kind there is refused."""
    train_forms: Annotated[tuple[AttackForm, ...], Field(min_length=1), Once] = (EARLY,)
    """Which of the attacks with train: true it learns from."""
    train_against: Names = ()
    """Benign changes whose images it takes for clean ones, beside the clean images themselves."""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Leave out keys that change nothing as they stand: the text is part of the fingerprint of a detector."""
        unsaid = {"learns_from"} | {name for name in TRAINING_DATA if self._is_default(name)}
        return ((name, value) for name, value in super().__repr_args__() if name not in unsaid)

    def _is_default(self, name: str) -> bool:
        return bool(getattr(self, name) == type(self).model_fields[name].get_default())

    @property
    def reads_trajectories(self) -> bool:
        """Tell whether the detector reads trajectories."""
        return self.kind in get_args(TrajectoryKind)

    @property
    def shown(self) -> dict[str, str]:
        """The columns that describe it in tables; empty where they do not apply."""
        names = ("representative", "distance", "order")
        return {"kind": self.kind} | {name: getattr(self, name) if self.reads_trajectories else "" for name in names}

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> DetectorParams:
        if self.top_k is not None and self.order != "ranked":
            raise ValueError(f"top_k: only with order: ranked, got top_k={self.top_k} with order: {self.order}")
        if self.reads_trajectories and self.arguments:
            raise ValueError(f"arguments: kind {self.kind} takes none, got {self.arguments}; set its keys beside kind")
        foreign = self.model_fields_set - {"kind", "arguments", *TRAINING_DATA}
        plain = {name for name in foreign if self._is_default(name)}
        if not self.reads_trajectories and foreign - plain:
            raise ValueError(
                f"{', '.join(sorted(foreign - plain))}: only with kind: {', '.join(get_args(TrajectoryKind))}; give a "
                f"detector of kind {self.kind!r} what it takes under arguments"
            )
        return self


class DetectorFitParams(Block):
    """The optimisation of one detector."""

    epochs: Count = 60
    batch_size: Count = 128
    learning_rate: LearningRate = 1e-3
    weight_decay: Decay = 0.0
    lr_patience: Count = 5
    lr_floor: LearningRate = 1e-7
    stop_patience: Count = 12

    @model_validator(mode="after")
    def _rate_falls(self) -> DetectorFitParams:
        if self.lr_floor > self.learning_rate:
            raise ValueError(
                f"lr_floor: expected at most the learning_rate {self.learning_rate:g}, got {self.lr_floor:g}"
            )
        return self


class DetectorTrainingParams(Block):
    """Detectors to train, with their training sets and seeds."""

    configurations: dict[str, DetectorParams | None]
    """null removes one."""
    criteria: TrainedCriteria = ("targeted", "untargeted")
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), Once] = (0,)
    leave_one_out: Names = ()
    fit: DetectorFitParams = DetectorFitParams()
    reference_checkpoints: dict[str, str] = Field(default_factory=dict)
    views: dict[str, ImageChangeParams | None] = Field(default_factory=dict)

    @property
    def active_views(self) -> dict[str, ImageChangeParams]:
        """The views that are not null, in configured order."""
        return {name: one for name, one in self.views.items() if one is not None}

    @field_validator("views")
    @classmethod
    def _view_names_are_usable(cls, views: dict[str, ImageChangeParams | None]) -> dict[str, ImageChangeParams | None]:
        check_names(views, reserved=())
        return views

    @property
    def active(self) -> dict[str, DetectorParams]:
        """The configurations that are not null, in configured order."""
        return {name: one for name, one in self.configurations.items() if one is not None}

    @property
    def asked_forms(self) -> frozenset[AttackForm]:
        """Forms of attacks that some configuration learns from."""
        return frozenset(form for one in self.active.values() for form in one.train_forms)

    @property
    def asked_changes(self) -> tuple[str, ...]:
        """Names of the benign changes that some configuration is trained against, each once."""
        return tuple(dict.fromkeys(name for one in self.active.values() for name in one.train_against))

    @field_validator("configurations")
    @classmethod
    def _names_are_usable(cls, configurations: dict[str, DetectorParams | None]) -> dict[str, DetectorParams | None]:
        check_names(configurations, reserved=CONTROLS)
        return configurations

    @field_validator("reference_checkpoints")
    @classmethod
    def _published_names_are_usable(cls, checkpoints: dict[str, str]) -> dict[str, str]:
        check_names(checkpoints, reserved=CONTROLS)
        return checkpoints

    @model_validator(mode="after")
    def _names_exist(self) -> DetectorTrainingParams:
        names = [*self.configurations, *self.reference_checkpoints]
        twice = sorted(
            name for name in self.reference_checkpoints if [one.lower() for one in names].count(name.lower()) > 1
        )
        if twice:
            raise ValueError(f"reference_checkpoints: expected other names than those of configurations, got {twice}")
        unknown = sorted(set(self.leave_one_out) - set(self.active))
        if unknown:
            raise ValueError(f"leave_one_out: expected names of {sorted(self.active)}, got {unknown}")
        if not self.active:
            raise ValueError("configurations: expected at least one, got none")
        return self
