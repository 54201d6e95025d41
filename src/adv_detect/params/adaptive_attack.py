"""Block ``adaptive_attack``: attacks on network and detector together."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from adv_detect.fields import LARGEST, Arguments, Block, Count, Names, Rate, check_names
from adv_detect.params.network import NetworkParams
from adv_detect.params.terms import Budgets, Criteria, TrainedCriteria

RESERVED_ADAPTIVE = ("union", "worst")
"""Names of other rows in the tables of adaptive attacks."""


class AdaptiveAttackSpec(Block):
    """One attack on network and detector together.

    ``role`` says what it stands for: ``white_box`` knows the detector; ``single_step`` is the one-step form that
    white-box attacks of the same name must beat; ``transfer`` is made on the substitute or, with ``surrogate``, on the
    network under attack with the detector of another configuration, which has a gradient. ``form: reference`` keeps
    the published stopping rule and threshold (probability 0.5). ``classifier: nearest_medoid`` names a class by the
    nearest medoid of the last layer. ``budgets``, ``criteria`` and ``detectors`` default to those of the whole block.
    """

    attack: str
    detectors: Annotated[Names, Field(min_length=1)] | None = None
    role: Literal["white_box", "single_step", "transfer"] = "white_box"
    surrogate: str | None = None
    form: Literal["correct", "reference"] = "correct"
    classifier: Literal["network", "nearest_medoid"] = "network"
    budgets: Budgets | None = None
    criteria: Criteria | None = None
    arguments: Arguments = Field(default_factory=dict)
    max_images: Count | None = None
    batch_size: Count | None = None

    @property
    def needs_substitute(self) -> bool:
        """Tell whether it is made on a network of the attacker's own."""
        return self.role == "transfer" and self.surrogate is None

    @model_validator(mode="after")
    def _surrogates_are_for_transfer(self) -> AdaptiveAttackSpec:
        if self.surrogate is not None and self.role != "transfer":
            raise ValueError(f"surrogate: only with role: transfer, got {self.surrogate!r} with role: {self.role}")
        return self


class SubstituteParams(Block):
    """The attacker's own network and detector, trained with another seed, for transfer attacks.

    ``network`` None means the architecture under attack, trained anew; one with a checkpoint is not trained.
    ``attacks`` are configured attacks that its detectors learn from, made on ``max_images`` images of the train and of
    the validation split. ``twin_epochs`` are those of its own twin, made where an attacked detector reads the twin.
    """

    network: NetworkParams | None = None
    epochs: Count = 6
    twin_epochs: Count = 20
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


class LayerMatchingParams(Block):
    """Attack that looks at no detector and moves all activations among those of clean images.

    Of the first ``max_images`` test images, in the order in which detectors are attacked; towards ``targets`` classes
    in ``restarts`` runs of ``steps``. ``coverage`` is the middle share of clean images, in each layer.
    """

    steps: Count = 40
    restarts: Count = 2
    targets: Count | Literal["all"] = 5
    coverage: Rate = 0.95
    max_images: Count = 100


class AdaptiveAttackParams(Block):
    """Attacks on network and detector together, their budgets, and adversarial training against them.

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
    layer_matching: LayerMatchingParams | None = LayerMatchingParams()
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
            stood_in = [name for name in getattr(self.hardening, key) if self.active[name].surrogate is not None]
            if stood_in:
                raise ValueError(
                    f"hardening.{key}: expected attacks on the detector itself or on the substitute, got {stood_in}, "
                    "which are made on the detector of another configuration"
                )
        unattacked = sorted(set(self.hardening.detectors) - set(self.detectors)) if self.hardening.rounds else []
        if unattacked:
            raise ValueError(
                f"hardening.detectors: expected some of detectors {list(self.detectors)}, got {unattacked}"
            )
        if not self.active:
            raise ValueError("attacks: expected at least one attack, got none")
        return self
