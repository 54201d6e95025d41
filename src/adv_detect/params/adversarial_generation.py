"""Block ``adversarial_generation``: attacks on the network."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from adv_detect.fields import Arguments, Block, Count, Once, PositiveNumber, check_names, parse_fraction
from adv_detect.names import CONFIDENT, EARLY, NATURAL, UNSEEN, VARIANTS
from adv_detect.params.terms import SPLITS, AttackForm, Criteria, Norm, Split

RESERVED_ATTACKS = (NATURAL, *VARIANTS, "all", "macro", "worst")
"""Names of other rows in the tables, or of other shards."""


class AttackParams(Block):
    """One attack on the network."""

    attack: str
    """Registered name (bim, pgd, mi-fgsm, cw, minimal-norm, deepfool, deep-features), or the dotted path of a foolbox
    attack.
    """
    norm: Norm | None = None
    """Norm of the perturbation; null = that of the attack."""
    epsilon: PositiveNumber | None = None
    """Largest perturbation, in the network's pixel range; an attack that searches for the smallest one takes none."""
    arguments: Arguments = Field(default_factory=dict)
    """What the attack takes, such as steps."""
    return_early: bool = True
    """true stops each image at its first success, just across the boundary; false takes all steps: confident
    adversarial examples.
    """
    criteria: Criteria = ("targeted", "untargeted")
    """targeted: towards one class; untargeted: towards any wrong one."""
    splits: Annotated[tuple[Split, ...], Field(min_length=1), Once] = SPLITS
    """Whose images are attacked."""
    train: bool = True
    """Whether detectors learn from it; needs all three splits. A confident attack teaches those whose train_forms
    say so.
    """
    max_images: Count | None = None
    """Of each split, in a seeded order; null = all."""
    max_learning_images: Count | None = None
    """Of the train and of the validation split each, where that is fewer."""
    batch_size: Count | None = None
    """Images attacked at once; null = runtime.batch_size."""

    @property
    def form(self) -> AttackForm:
        """``early`` stops at the boundary; ``confident`` takes all steps or asks for a margin."""
        confident = not self.return_early or float(str(parse_fraction(self.arguments.get("confidence", 0)))) > 0
        return "confident" if confident else "early"

    @property
    def tested_form(self) -> str:
        """The form, or ``unseen`` for an early attack with ``train: false``: detectors are compared group by group."""
        return UNSEEN if self.form == EARLY and not self.train else self.form

    def limit(self, split: Split) -> int | None:
        """Most images of a split that are attacked; None for all."""
        limits = [self.max_images, self.max_learning_images if split != "test" else None]
        return min((one for one in limits if one is not None), default=None)

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
    """The attacks on the network, by name.

    Without any attack natural images alone are stored: enough for detectors that learn from clean images.
    """

    attacks: dict[str, AttackParams | None]
    """null removes one."""

    @property
    def active(self) -> dict[str, AttackParams]:
        """The attacks that are not null, in configured order."""
        return {name: attack for name, attack in self.attacks.items() if attack is not None}

    @property
    def tested_forms(self) -> dict[str, str]:
        """``early``, ``confident`` or ``unseen``, by name."""
        return {name: one.tested_form for name, one in self.active.items()}

    def trained(self, forms: Collection[AttackForm]) -> dict[str, Criteria]:
        """Criteria of the attacks for training that have one of some forms, by name."""
        return {name: one.criteria for name, one in self.active.items() if one.train and one.form in forms}

    def splits_of(self, name: str, forms: Collection[AttackForm]) -> tuple[Split, ...]:
        """List the splits whose images an attack is run on.

        Args:
            name: The attack.
            forms: Forms that some detector learns from. An early attack for training is always made, since the best
                detector is chosen on such; a confident one costs as much again, so it is made where it is learned from.
        """
        one = self.active[name]
        unread = one.train and one.form == CONFIDENT and CONFIDENT not in forms
        return ("test",) if unread else one.splits

    @field_validator("attacks")
    @classmethod
    def _names_are_usable(cls, attacks: dict[str, AttackParams | None]) -> dict[str, AttackParams | None]:
        check_names(attacks, reserved=RESERVED_ATTACKS)
        return attacks
