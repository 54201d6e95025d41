"""Typed parameter blocks.

Each block is the type hint of a node's ``params:`` argument, so Kedro builds and checks it before any node
runs: a misspelt key or a value out of range fails early with a message that names the key.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from adv_detect.fields import (
    LARGEST,
    NAME_WORDS,
    Arguments,
    Count,
    Decay,
    LearningRate,
    Names,
    Once,
    Rate,
    Seed,
    check_name,
    check_names,
    parse_fraction,
)
from adv_detect.fields import Block as Block  # noqa: PLC0414 - also found here
from adv_detect.fields import Number as Number  # noqa: PLC0414 - also found here
from adv_detect.fields import PositiveNumber as PositiveNumber  # noqa: PLC0414 - also found here

Criterion = Literal["targeted", "untargeted"]
Split = Literal["train", "validation", "test"]
Norm = Literal["l1", "l2", "linf"]
Representative = Literal["medoid", "centroid"]
Distance = Literal["euclidean", "cosine", "mahalanobis"]
ClassOrder = Literal["fixed", "ranked"]
TrajectoryKind = Literal["lstm", "bilstm", "mlp"]

"""The attack that aims at the features of the last layer."""

RESERVED_ATTACKS = ("natural", "noise", "all", "macro", "worst")
"""Names of other rows in the tables."""
RESERVED_CONFIGURATIONS = ("margin", "untrained")
"""Names of the controls."""
RESERVED_ADAPTIVE = ("union", "worst")
"""Names of other rows in the tables of adaptive attacks."""

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FEWEST_TAILS = 1.0
"""Resamples that lie outside an interval, on average: with fewer its bounds are not measured."""

Criteria = Annotated[tuple[Criterion, ...], Field(min_length=1), Once]
TrainedCriteria = Annotated[tuple[Literal["targeted", "untargeted", "both"], ...], Field(min_length=1), Once]
Budgets = Annotated[
    dict[Literal["l2", "linf"], Annotated[tuple[PositiveNumber, ...], Field(min_length=1), Once]], Field(min_length=1)
]


class RayParams(Block):
    """Resources of one task when shards run on a Ray cluster."""

    address: str | None = None
    num_cpus: float = Field(1, ge=0)
    num_gpus: float = Field(0, ge=0)
    max_retries: int = Field(3, ge=0, le=LARGEST)


class RuntimeParams(Block):
    """Where and how the heavy nodes run."""

    seed: Seed = 0
    device: str = "auto"
    batch_size: Count = 256
    shard_size: Count = 500
    engine: Literal["local", "ray"] = "local"
    ray: RayParams = RayParams()
    progress: bool = True
    wait_seconds: float = Field(0.0, ge=0, allow_inf_nan=False)


class PreprocessingParams(Block):
    """What happens inside the model before the network: ``(order(images) * scale - mean) / std``.

    ``mean`` and ``std`` stand in the order given by ``channel_order``.
    """

    scale: PositiveNumber = 1.0
    channel_order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[Number, ...] | None = None
    std: tuple[PositiveNumber, ...] | None = None


class LayerParams(Block):
    """A layer whose channel axis is stated: ``channels`` counts from the axis of the images, 0, or from the end."""

    name: str
    channels: int | None = Field(None, ge=-3, le=3)

    @model_validator(mode="after")
    def _images_are_no_channels(self) -> LayerParams:
        if self.channels == 0:
            raise ValueError("channels: expected an axis from 1 or, from the end, from -1; 0 is the axis of the images")
        return self


class NetworkParams(Block):
    """The network under attack.

    ``output`` names the logits, by key, attribute or index, where the network gives more than them.
    """

    name: str = "small"
    arguments: Arguments = Field(default_factory=dict)
    checkpoint: str | None = None
    layers: tuple[str | LayerParams, ...] | None = None
    output: str | int | None = None
    bounds: tuple[Number, Number] = (0.0, 1.0)
    preprocessing: PreprocessingParams = PreprocessingParams()

    @model_validator(mode="after")
    def _bounds_ascend(self) -> NetworkParams:
        if self.bounds[0] >= self.bounds[1]:
            raise ValueError(f"bounds: expected low < high, got {list(self.bounds)}")
        return self


class SplitParams(Block):
    """How the attacked images are divided, by source image (or by identity), for the detector.

    ``by: identity`` puts all images of a class into one split.
    """

    train: Rate = 0.5
    validation: Rate = 0.2
    test: Rate = 0.3
    by: Literal["source", "identity"] = "source"
    max_images: int | None = Field(None, ge=3, le=LARGEST)

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitParams:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"expected train + validation + test = 1, got {total:g}")
        return self


class TargetTrainingParams(Block):
    """Training of a network under attack that has no checkpoint."""

    epochs: Count = 10
    batch_size: Count = 64
    learning_rate: LearningRate = 1e-3
    weight_decay: Decay = 0.0
    optimizer: Literal["adam", "sgd"] = "adam"
    schedule: Literal["constant", "cosine", "onecycle"] = "onecycle"
    augmentation: Literal["none", "shift", "crop_flip"] = "none"
    head_only: bool = False
    autocast: bool = False
    workers: int = Field(0, ge=0, le=1024)
    min_accuracy: float = Field(0.0, ge=0, le=1)


class FeatureExtractionParams(Block):
    """Which training images the class representatives come from."""

    max_images_per_class: Count | None = None


class RepresentativesParams(Block):
    """Medoids, centroids and the whitening of each layer."""

    shrinkage: Literal["ledoit_wolf", "oas"] = "ledoit_wolf"
    shrinkage_samples: int = Field(10_000, ge=2, le=LARGEST)
    memory_budget_mb: Count = 256


class AttackParams(Block):
    """One attack on the network.

    ``attack`` is a registered name or the dotted path of a foolbox attack class. ``epsilon`` is in the
    network's pixel range; attacks that search for the smallest perturbation take none.
    """

    attack: str
    norm: Norm | None = None
    epsilon: PositiveNumber | None = None
    arguments: Arguments = Field(default_factory=dict)
    return_early: bool = True
    criteria: Criteria = ("targeted", "untargeted")
    splits: Annotated[tuple[Split, ...], Field(min_length=1), Once] = SPLITS
    train: bool = True
    max_images: Count | None = None
    batch_size: Count | None = None

    @property
    def form(self) -> Literal["early", "confident"]:
        """``early`` stops at the boundary; ``confident`` takes all steps or asks for a margin."""
        confident = not self.return_early or float(str(parse_fraction(self.arguments.get("confidence", 0)))) > 0
        return "confident" if confident else "early"

    @model_validator(mode="after")
    def _trained_attacks_cover_all_splits(self) -> AttackParams:
        if self.train and set(self.splits) != set(SPLITS):
            raise ValueError(
                f"splits: an attack with train: true needs {list(SPLITS)}, got {list(self.splits)}; "
                "set train: false for an attack that the detector meets in evaluation only"
            )
        if "test" not in self.splits:
            raise ValueError(
                f"splits: an attack with train: false is met in the test split alone, got {list(self.splits)}; add test"
            )
        return self


class AdversarialGenerationParams(Block):
    """The attacks by name; an environment removes one by setting it to null."""

    attacks: dict[str, AttackParams | None]

    @property
    def active(self) -> dict[str, AttackParams]:
        """The attacks that are not null, in configured order."""
        return {name: attack for name, attack in self.attacks.items() if attack is not None}

    @field_validator("attacks")
    @classmethod
    def _names_are_usable(cls, attacks: dict[str, AttackParams | None]) -> dict[str, AttackParams | None]:
        check_names(attacks, reserved=RESERVED_ATTACKS)
        return attacks

    @model_validator(mode="after")
    def _there_are_some(self) -> AdversarialGenerationParams:
        if not self.active:
            raise ValueError("attacks: expected at least one attack, got none")
        return self


class DetectorParams(Block):
    """One detector configuration: what it is, what it reads and how.

    ``kind`` is a registered name, or the dotted path of a detector class of one's own, which takes ``arguments``. The
    other keys are for the detectors that read trajectories.
    """

    kind: str = "lstm"
    representative: Representative = "medoid"
    distance: Distance = "cosine"
    order: ClassOrder = "fixed"
    top_k: Count | None = None
    hidden: int = Field(100, ge=1, le=4096)
    arguments: Arguments = Field(default_factory=dict)

    @property
    def reads_trajectories(self) -> bool:
        """Whether it is one of the detectors that read trajectories."""
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
        foreign = self.model_fields_set - {"kind", "arguments"}
        plain = {name for name in foreign if getattr(self, name) == type(self).model_fields[name].get_default()}
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
    """Which detectors are trained, on what and how often.

    ``criteria`` may hold ``both``: one detector for targeted and untargeted attacks together.
    ``leave_one_out`` names configurations that are trained again once per attack, without that attack (with the first
    seed, per single criterion).
    """

    configurations: dict[str, DetectorParams | None]
    criteria: TrainedCriteria = ("targeted", "untargeted")
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), Once] = (0,)
    leave_one_out: Names = ()
    fit: DetectorFitParams = DetectorFitParams()
    reference_checkpoints: dict[str, str] = Field(default_factory=dict)

    @property
    def active(self) -> dict[str, DetectorParams]:
        """The configurations that are not null, in configured order."""
        return {name: one for name, one in self.configurations.items() if one is not None}

    @field_validator("configurations")
    @classmethod
    def _names_are_usable(cls, configurations: dict[str, DetectorParams | None]) -> dict[str, DetectorParams | None]:
        check_names(configurations, reserved=RESERVED_CONFIGURATIONS)
        return configurations

    @field_validator("reference_checkpoints")
    @classmethod
    def _published_names_are_usable(cls, checkpoints: dict[str, str]) -> dict[str, str]:
        check_names(checkpoints, reserved=RESERVED_CONFIGURATIONS)
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


def _model_name(value: str) -> str:
    """Refuse a dot as well, which MLflow does not take in the name of a logged model."""
    if "." in value:
        raise ValueError(f"expected a name of {NAME_WORDS} but without '.', got {value!r}")
    return check_name(value)


class ServingParams(Block):
    """The registered model."""

    name: Annotated[str, AfterValidator(_model_name)] = "adv-detect"
    fpr: Rate = 0.05
    max_images: int = Field(256, ge=1)
    max_bytes: int = Field(32 * 2**20, ge=1024)


class EvaluationParams(Block):
    """What is measured and shown."""

    fprs: tuple[Rate, ...] = (0.01, 0.03, 0.05, 0.10)
    bootstrap: int = Field(1000, ge=0, le=1_000_000)
    confidence_level: float = Field(0.95, ge=0.5, le=0.999)
    show_class: int = Field(0, ge=0, le=LARGEST)
    show_examples: int = Field(6, ge=1, le=20)

    @model_validator(mode="after")
    def _bounds_can_be_measured(self) -> EvaluationParams:
        least = math.ceil(FEWEST_TAILS / (1 - self.confidence_level) - 1e-6)
        if 0 < self.bootstrap < least:
            raise ValueError(
                f"bootstrap: expected 0 (no intervals) or at least {least} resamples for confidence_level "
                f"{self.confidence_level:g}, got {self.bootstrap}"
            )
        return self

    @model_validator(mode="after")
    def _rates_can_be_shown(self) -> EvaluationParams:
        percents = {f"{100 * fpr:.6g}" for fpr in self.fprs}
        if len(percents) < len(self.fprs) or not {"1", "5"} <= percents:
            raise ValueError(f"fprs: expected rates each once, 0.01 and 0.05 among them, got {list(self.fprs)}")
        return self


class FacePairsParams(Block):
    """The pairs of 1:1 verification.

    ``source: file`` reads the dataset ``verification_pairs``, a text in LFW's format; ``drawn`` draws ``number`` pairs
    from the images, in ``folds`` folds that share no identity.
    """

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


class FaceRecognitionParams(Block):
    """Verification and identification, clean and attacked.

    ``thresholds`` says how the thresholds are fixed on clean pairs, at which attacked pairs are judged: highest
    ``accuracy``, equal errors (``eer``), or a false-accept rate. ``mirror`` adds the embedding of the mirror image
    before verification.
    """

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


class AdaptiveAttackSpec(Block):
    """One attack on network and detector together.

    ``role`` says what it stands for: ``white_box`` knows the detector; ``single_step`` is the one-step form that
    white-box attacks of the same name must beat; ``transfer`` is made on the substitute. ``form: reference`` keeps
    the published stopping rule and threshold (probability 0.5). ``classifier: nearest_medoid`` names a class by the
    nearest medoid of the last layer. ``budgets``, ``criteria`` and ``detectors`` default to those of the whole block.
    """

    attack: str
    detectors: Annotated[Names, Field(min_length=1)] | None = None
    role: Literal["white_box", "single_step", "transfer"] = "white_box"
    form: Literal["correct", "reference"] = "correct"
    classifier: Literal["network", "nearest_medoid"] = "network"
    budgets: Budgets | None = None
    criteria: Criteria | None = None
    arguments: Arguments = Field(default_factory=dict)
    max_images: Count | None = None
    batch_size: Count | None = None


class SubstituteParams(Block):
    """The attacker's own network and detector, trained with another seed, for transfer attacks.

    ``network`` None means the architecture under attack, trained anew; one with a checkpoint is not trained.
    ``attacks`` are configured attacks that its detectors learn from, made on ``max_images`` images of the train and of
    the validation split.
    """

    network: NetworkParams | None = None
    epochs: Count = 6
    attacks: Names = ("bim", "mi-fgsm")
    max_images: int = Field(400, ge=4, le=LARGEST)


class HardeningParams(Block):
    """Adversarial training of detectors: attacked on train and validation images, fitted again, attacked anew.

    ``attacks`` make the training images, ``test_attacks`` are run against the result; both name entries of
    ``adaptive_attack.attacks``. ``rounds: 0`` leaves it out.
    """

    rounds: int = Field(1, ge=0, le=LARGEST)
    detectors: Names = ()
    attacks: Names = ()
    test_attacks: Names = ()
    train_images: Count = 200
    validation_images: Count = 80


class AdaptiveAttackParams(Block):
    """Attacks on detectors that the attacker knows.

    ``detectors`` are configurations of ``detector_training``, attacked per ``trained_criteria`` with the first seed.
    ``criteria`` are those of the attacks. Attacked are the first ``max_images`` test images, in a seeded order, that
    the network classifies correctly and the detector passes.
    """

    detectors: Annotated[Names, Field(min_length=1)]
    trained_criteria: TrainedCriteria = ("both",)
    criteria: Criteria = ("untargeted",)
    budgets: Budgets
    max_images: Count = 100
    max_images_per_class: Count | None = None
    attacks: dict[str, AdaptiveAttackSpec | None]
    substitute: SubstituteParams = SubstituteParams()
    hardening: HardeningParams = HardeningParams()
    show_examples: int = Field(6, ge=1, le=20)

    @property
    def active(self) -> dict[str, AdaptiveAttackSpec]:
        """The attacks that are not null, in configured order."""
        return {name: one for name, one in self.attacks.items() if one is not None}

    @field_validator("attacks")
    @classmethod
    def _names_are_usable(cls, attacks: dict[str, AdaptiveAttackSpec | None]) -> dict[str, AdaptiveAttackSpec | None]:
        check_names(attacks, reserved=RESERVED_ADAPTIVE)
        return attacks

    @model_validator(mode="after")
    def _names_exist(self) -> AdaptiveAttackParams:
        for key in ("attacks", "test_attacks") if self.hardening.rounds else ():
            unknown = sorted(set(getattr(self.hardening, key)) - set(self.active))
            if unknown:
                raise ValueError(f"hardening.{key}: expected names of {sorted(self.active)}, got {unknown}")
        unattacked = sorted(set(self.hardening.detectors) - set(self.detectors)) if self.hardening.rounds else []
        if unattacked:
            raise ValueError(
                f"hardening.detectors: expected some of detectors {list(self.detectors)}, got {unattacked}"
            )
        if not self.active:
            raise ValueError("attacks: expected at least one attack, got none")
        return self


BLOCKS: dict[str, type[Block]] = {
    "runtime": RuntimeParams,
    "network": NetworkParams,
    "splits": SplitParams,
    "serving": ServingParams,
    "target_training": TargetTrainingParams,
    "feature_extraction": FeatureExtractionParams,
    "representatives": RepresentativesParams,
    "adversarial_generation": AdversarialGenerationParams,
    "detector_training": DetectorTrainingParams,
    "evaluation": EvaluationParams,
    "face_recognition": FaceRecognitionParams,
    "adaptive_attack": AdaptiveAttackParams,
}
"""Every block of the parameter files by name."""
