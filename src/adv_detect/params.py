"""Typed parameter blocks.

Each block is the type hint of a node's ``params:`` argument, so Kedro builds and checks it before any node
runs: a misspelt key or a value out of range fails early with a message that names the key.
"""

from __future__ import annotations

from difflib import get_close_matches
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from adv_detect.keys import NAME_RULE, is_name

Criterion = Literal["targeted", "untargeted"]
Split = Literal["train", "validation", "test"]
Norm = Literal["l1", "l2", "linf"]
Representative = Literal["medoid", "centroid"]
Distance = Literal["euclidean", "cosine", "mahalanobis"]
ClassOrder = Literal["fixed", "ranked"]

DEEP_FEATURES = "deep-features"
"""The attack that aims at the features of the last layer."""

WHOLE_PERCENT = 1e-6
RESERVED_ATTACKS = ("natural", "noise", "all", "macro", "worst")
"""Names of other rows in the tables."""
RESERVED_CONFIGURATIONS = ("margin", "untrained")
"""Names of the controls."""

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def _parse_fraction(value: object) -> object:
    """Turn ``"8/255"`` into a float; other values pass through."""
    if isinstance(value, str) and "/" in value:
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError) as exc:
            raise ValueError(f"expected a number or a fraction such as '8/255', got {value!r}") from exc
    return value


Number = Annotated[float, BeforeValidator(_parse_fraction)]
PositiveNumber = Annotated[float, BeforeValidator(_parse_fraction), Field(gt=0)]


class Block(BaseModel):
    """Base of all parameter blocks: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, values: Any) -> Any:
        """Name the valid keys beside one that is not, which pydantic does not."""
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                close = get_close_matches(str(key), list(cls.model_fields), n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise ValueError(f"expected keys of [{', '.join(cls.model_fields)}], got {key!r}{hint}")
        return values


class RayParams(Block):
    """Resources of one task when shards run on a Ray cluster."""

    address: str | None = None
    num_cpus: float = Field(1, ge=0)
    num_gpus: float = Field(0, ge=0)
    max_retries: int = Field(3, ge=0)


class RuntimeParams(Block):
    """Where and how the heavy nodes run."""

    seed: int = Field(0, ge=0)
    device: str = "auto"
    batch_size: int = Field(256, ge=1)
    shard_size: int = Field(500, ge=1)
    engine: Literal["local", "ray"] = "local"
    ray: RayParams = RayParams()
    progress: bool = True


class PreprocessingParams(Block):
    """What happens inside the model before the network: ``(order(images) * scale - mean) / std``.

    ``mean`` and ``std`` stand in the order given by ``channel_order``.
    """

    scale: PositiveNumber = 1.0
    channel_order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[Number, ...] | None = None
    std: tuple[PositiveNumber, ...] | None = None


class NetworkParams(Block):
    """The network under attack."""

    name: str = "small"
    arguments: dict[str, Any] = {}
    checkpoint: str | None = None
    layers: tuple[str, ...] | None = None
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

    train: float = Field(0.5, gt=0, lt=1)
    validation: float = Field(0.2, gt=0, lt=1)
    test: float = Field(0.3, gt=0, lt=1)
    by: Literal["source", "identity"] = "source"
    max_images: int | None = Field(None, ge=3)

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitParams:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"splits: expected train + validation + test = 1, got {total:g}")
        return self


class TargetTrainingParams(Block):
    """Training of a network under attack that has no checkpoint."""

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(64, ge=1)
    learning_rate: PositiveNumber = 1e-3
    weight_decay: float = Field(0.0, ge=0)
    optimizer: Literal["adam", "sgd"] = "adam"
    schedule: Literal["constant", "cosine", "onecycle"] = "onecycle"
    augmentation: Literal["none", "shift", "crop_flip"] = "none"
    head_only: bool = False
    autocast: bool = False
    workers: int = Field(0, ge=0)
    min_accuracy: float = Field(0.0, ge=0, le=1)


class FeatureExtractionParams(Block):
    """Which training images the class representatives come from."""

    max_images_per_class: int | None = Field(None, ge=1)


class RepresentativesParams(Block):
    """Medoids, centroids and the whitening of each layer."""

    shrinkage: Literal["ledoit_wolf", "oas"] = "ledoit_wolf"
    shrinkage_samples: int = Field(10_000, ge=2)
    memory_budget_mb: int = Field(256, ge=1)


class AttackParams(Block):
    """One attack on the network.

    ``attack`` is a registered name or the dotted path of a foolbox attack class. ``epsilon`` is in the
    network's pixel range; attacks that search for the smallest perturbation take none.
    """

    attack: str
    norm: Norm | None = None
    epsilon: PositiveNumber | None = None
    arguments: dict[str, Any] = {}
    return_early: bool = True
    criteria: tuple[Criterion, ...] = ("targeted", "untargeted")
    splits: tuple[Split, ...] = SPLITS
    train: bool = True
    max_images: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=1)

    @property
    def form(self) -> Literal["early", "confident"]:
        """``early`` stops at the boundary; ``confident`` takes all steps or asks for a margin."""
        confident = not self.return_early or float(str(_parse_fraction(self.arguments.get("confidence", 0)))) > 0
        return "confident" if confident else "early"

    @model_validator(mode="after")
    def _trained_attacks_cover_all_splits(self) -> AttackParams:
        if self.train and set(self.splits) != set(SPLITS):
            raise ValueError(
                f"splits: an attack with train: true needs {list(SPLITS)}, got {list(self.splits)}; "
                "set train: false for an attack that the detector meets in evaluation only"
            )
        return self


class AdversarialGenerationParams(Block):
    """The attacks by name; an environment removes one by setting it to null."""

    attacks: dict[str, AttackParams | None]

    @property
    def active(self) -> dict[str, AttackParams]:
        """The attacks that are not null, in configured order."""
        return {name: attack for name, attack in self.attacks.items() if attack is not None}

    @property
    def on_features(self) -> tuple[str, ...]:
        """Names of the attacks that aim at the features instead of the class."""
        return tuple(name for name, attack in self.active.items() if attack.attack == DEEP_FEATURES)

    @model_validator(mode="after")
    def _names_are_usable(self) -> AdversarialGenerationParams:
        bad = [name for name in self.attacks if not is_name(name) or name in RESERVED_ATTACKS]
        if bad:
            raise ValueError(f"attacks: names: {NAME_RULE}, and to be none of {list(RESERVED_ATTACKS)}, got {bad}")
        if not self.active:
            raise ValueError("attacks: expected at least one attack, got none")
        return self


class DetectorParams(Block):
    """One detector configuration: what it reads and how."""

    kind: Literal["lstm", "bilstm", "mlp"] = "lstm"
    representative: Representative = "medoid"
    distance: Distance = "cosine"
    order: ClassOrder = "fixed"
    top_k: int | None = Field(None, ge=1)
    hidden: int = Field(100, ge=1)

    @model_validator(mode="after")
    def _top_k_needs_ranked(self) -> DetectorParams:
        if self.top_k is not None and self.order != "ranked":
            raise ValueError(f"top_k: only with order: ranked, got top_k={self.top_k} with order: {self.order}")
        return self


class DetectorFitParams(Block):
    """The optimisation of one detector."""

    epochs: int = Field(60, ge=1)
    batch_size: int = Field(128, ge=1)
    learning_rate: PositiveNumber = 1e-3
    weight_decay: float = Field(0.0, ge=0)
    lr_patience: int = Field(5, ge=1)
    lr_floor: PositiveNumber = 1e-7
    stop_patience: int = Field(12, ge=1)


class DetectorTrainingParams(Block):
    """Which detectors are trained, on what and how often.

    ``criteria`` may hold ``both``: one detector for targeted and untargeted attacks together.
    ``leave_one_out`` names configurations that are trained again once per attack, without that attack (with the first
    seed, per single criterion).
    """

    configurations: dict[str, DetectorParams | None]
    criteria: tuple[Literal["targeted", "untargeted", "both"], ...] = ("targeted", "untargeted")
    seeds: tuple[int, ...] = (0,)
    leave_one_out: tuple[str, ...] = ()
    fit: DetectorFitParams = DetectorFitParams()
    reference_checkpoints: dict[str, str] = {}

    @property
    def active(self) -> dict[str, DetectorParams]:
        """The configurations that are not null, in configured order."""
        return {name: one for name, one in self.configurations.items() if one is not None}

    @model_validator(mode="after")
    def _names_exist(self) -> DetectorTrainingParams:
        for key in ("configurations", "reference_checkpoints"):
            bad = [name for name in getattr(self, key) if not is_name(name) or name in RESERVED_CONFIGURATIONS]
            if bad:
                raise ValueError(
                    f"{key}: names: {NAME_RULE}, and to be none of {list(RESERVED_CONFIGURATIONS)}, got {bad}"
                )
        unknown = sorted(set(self.leave_one_out) - set(self.active))
        if unknown:
            raise ValueError(f"leave_one_out: expected names of {sorted(self.active)}, got {unknown}")
        if not self.active or not self.criteria or not self.seeds:
            raise ValueError("expected at least one of each: configurations, criteria, seeds")
        return self


class ServingParams(Block):
    """The registered model."""

    name: str = "adv-detect"
    fpr: float = 0.05


class EvaluationParams(Block):
    """What is measured and shown."""

    fprs: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.01, 0.03, 0.05, 0.10)
    bootstrap: int = Field(1000, ge=0)
    confidence_level: float = Field(0.95, gt=0, lt=1)
    show_class: int = Field(0, ge=0)
    show_examples: int = Field(6, ge=1)

    @model_validator(mode="after")
    def _rates_can_be_shown(self) -> EvaluationParams:
        percents = [100 * fpr for fpr in self.fprs]
        whole = all(abs(value - round(value)) < WHOLE_PERCENT for value in percents)
        if not whole or len(set(map(round, percents))) < len(percents) or not {1, 5} <= set(map(round, percents)):
            raise ValueError(
                f"fprs: expected whole percents, each once, 0.01 and 0.05 among them, got {list(self.fprs)}"
            )
        return self


class FacePairsParams(Block):
    """The pairs of 1:1 verification.

    ``source: file`` reads the dataset ``verification_pairs``, a text in LFW's format; ``drawn`` draws ``number`` pairs
    from the images, in ``folds`` folds that share no identity.
    """

    source: Literal["file", "drawn"] = "drawn"
    number: int = Field(600, ge=2, multiple_of=2)
    folds: int = Field(10, ge=2)


Rate = Annotated[float, Field(gt=0, lt=1)]


class FaceRecognitionParams(Block):
    """Verification and identification, clean and attacked.

    ``thresholds`` says how the thresholds are fixed on clean pairs, at which attacked pairs are judged: highest
    ``accuracy``, equal errors (``eer``), or a false-accept rate. ``mirror`` adds the embedding of the mirror image
    before verification.
    """

    pairs: FacePairsParams = FacePairsParams()
    mirror: bool = False
    fars: tuple[Rate, ...] = (0.1, 0.01, 0.001)
    thresholds: tuple[Literal["accuracy", "eer"] | Rate, ...] = Field(("accuracy", "eer", 0.001), min_length=1)
    galleries: tuple[Literal["medoid", "centroid", "images"], ...] = Field(("medoid", "images"), min_length=1)
    neighbours: int = Field(1, ge=1)
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
    detectors: tuple[str, ...] | None = None
    role: Literal["white_box", "single_step", "transfer"] = "white_box"
    form: Literal["correct", "reference"] = "correct"
    classifier: Literal["network", "nearest_medoid"] = "network"
    budgets: dict[Literal["l2", "linf"], tuple[PositiveNumber, ...]] | None = None
    criteria: tuple[Criterion, ...] | None = None
    arguments: dict[str, Any] = {}
    max_images: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=1)


class SubstituteParams(Block):
    """The attacker's own network and detector, trained with another seed, for transfer attacks.

    ``network`` None means the architecture under attack, trained anew; ``attacks`` are configured attacks that its
    detectors learn from, made on the first ``max_images`` images of the train and of the validation split.
    """

    network: NetworkParams | None = None
    epochs: int = Field(6, ge=1)
    attacks: tuple[str, ...] = ("bim", "mi-fgsm")
    max_images: int = Field(400, ge=4)


class HardeningParams(Block):
    """Adversarial training of detectors: attacked on train and validation images, fitted again, attacked anew.

    ``attacks`` make the training images, ``test_attacks`` are run against the result; both name entries of
    ``adaptive_attack.attacks``. ``rounds: 0`` leaves it out.
    """

    rounds: int = Field(1, ge=0)
    detectors: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()
    test_attacks: tuple[str, ...] = ()
    train_images: int = Field(200, ge=1)
    validation_images: int = Field(80, ge=1)


class AdaptiveAttackParams(Block):
    """Attacks on detectors that the attacker knows.

    ``detectors`` are configurations of ``detector_training``, attacked per ``trained_criteria`` with the first seed.
    ``criteria`` are those of the attacks. Attacked are the first ``max_images`` test images, in a seeded order, that
    the network classifies correctly and the detector passes.
    """

    detectors: tuple[str, ...]
    trained_criteria: tuple[Literal["targeted", "untargeted", "both"], ...] = ("both",)
    criteria: tuple[Criterion, ...] = ("untargeted",)
    budgets: dict[Literal["l2", "linf"], tuple[PositiveNumber, ...]]
    max_images: int = Field(100, ge=1)
    max_images_per_class: int | None = Field(None, ge=1)
    attacks: dict[str, AdaptiveAttackSpec | None]
    substitute: SubstituteParams = SubstituteParams()
    hardening: HardeningParams = HardeningParams()
    show_examples: int = Field(6, ge=1)

    @property
    def active(self) -> dict[str, AdaptiveAttackSpec]:
        """The attacks that are not null, in configured order."""
        return {name: one for name, one in self.attacks.items() if one is not None}

    @model_validator(mode="after")
    def _names_exist(self) -> AdaptiveAttackParams:
        bad = [name for name in self.attacks if not is_name(name) or name in ("union", "worst")]
        if bad:
            raise ValueError(f"attacks: names: {NAME_RULE}, and to be none of ['union', 'worst'], got {bad}")
        for key in ("attacks", "test_attacks") if self.hardening.rounds else ():
            unknown = sorted(set(getattr(self.hardening, key)) - set(self.active))
            if unknown:
                raise ValueError(f"hardening.{key}: expected names of {sorted(self.active)}, got {unknown}")
        unattacked = sorted(set(self.hardening.detectors) - set(self.detectors)) if self.hardening.rounds else []
        if unattacked:
            raise ValueError(
                f"hardening.detectors: expected some of detectors {list(self.detectors)}, got {unattacked}"
            )
        if not self.active or not self.detectors or not self.trained_criteria:
            raise ValueError("expected at least one of each: attacks, detectors, trained_criteria")
        return self
