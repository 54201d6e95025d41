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
    """One attack on network and detector together."""

    attack: str
    """Registered name, or the dotted path of a function of one's own."""
    detectors: Annotated[Names, Field(min_length=1)] | None = None
    """Which of adaptive_attack.detectors it is run on; null = all."""
    role: Literal["white_box", "single_step", "transfer"] = "white_box"
    """white_box knows the detector; single_step is the one-step form that white-box attacks of the same name must
    beat; transfer is made on the attacker's own network, detector and, where the detector reads one, twin.
    """
    surrogate: str | None = None
    """With role: transfer: made on the network under attack and the detector of this configuration instead, which
    has a gradient.
    """
    form: Literal["correct", "reference"] = "correct"
    """correct looks at network and detector when it stops; reference keeps the published stopping rule and
    threshold (probability 0.5).
    """
    classifier: Literal["network", "nearest_medoid", "both_similarities"] = "network"
    """What names the class of an image; nearest_medoid: the nearest medoid of the last layer; both_similarities: the
    class that is most similar in network and twin, by the worse of both, for attacks on a gate that asks the twin.
    """
    budgets: Budgets | None = None
    """Norms and epsilons; null = those of the block."""
    criteria: Criteria | None = None
    """null = those of the block."""
    arguments: Arguments = Field(default_factory=dict)
    """What the attack takes, such as steps."""
    max_images: Count | None = None
    """null = that of the block."""
    batch_size: Count | None = None
    """Images attacked at once; null = runtime.batch_size."""

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
    """The attacker's own network and detector, trained with another seed, for transfer attacks."""

    network: NetworkParams | None = None
    epochs: Count = 6
    twin_epochs: Count = 20
    attacks: Names = ("bim", "mi-fgsm")
    max_images: int = Field(400, ge=4, le=LARGEST)


class HardeningParams(Block):
    """Adversarial training of detectors: attacked on train and validation images, fitted again, attacked anew."""

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
    """Of each run."""
    restarts: Count = 2
    """Runs for each image."""
    targets: Count | Literal["all"] = 5
    """Classes aimed at."""
    coverage: Rate = 0.95
    """Middle share of clean images, in each layer."""
    max_images: Count = 100
    """Test images, in the order in which detectors are attacked."""


class AdaptiveAttackParams(Block):
    """Attacks on network and detector together, their budgets, and adversarial training against them.

    Attacked are test images that the network classifies correctly and the detector passes.
    """

    detectors: Annotated[Names, Field(min_length=1)]
    trained_criteria: TrainedCriteria = ("both",)
    criteria: Criteria = ("untargeted",)
    budgets: Budgets
    max_images: Count = 100
    max_images_per_class: Count | None = None
    attacks: dict[str, AdaptiveAttackSpec | None]
    """null removes one."""
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
