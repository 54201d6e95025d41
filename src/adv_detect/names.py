"""Names that several tables, shards and modules share."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

NATURAL = "natural"
"""In the place of an attack: unattacked images."""
NO_CRITERION = "none"
"""The criterion of natural images, and of a detector that learned from no attack."""
TARGETED, UNTARGETED = "targeted", "untargeted"
BOTH_CRITERIA = "both"
TRAINED_ON_ALL = "all"
"""In the place of what a detector was trained on: all attacks for training."""
WITHOUT = "without-"
"""Precedes the name of an attack in the place of what a detector was trained on: all attacks but that one."""
REFERENCE = "reference"
"""In the place of what a detector was trained on: it is a published one."""
LEARNED_FROM_ALL = (TRAINED_ON_ALL, "clean", "nothing")
"""What a detector learned from that learned from everything that it can learn from."""
MARGIN, UNTRAINED = "margin", "untrained"
CONTROLS = (MARGIN, UNTRAINED)
"""Detectors that every other one must beat, by configuration: the network's margin alone, and random weights."""
UNTRAINED_DRAWS = 10
"""Random weights that the untrained control is averaged over: a single draw is as often far above .5 as far below."""
CONTROL_KEYS = (MARGIN, *(f"{UNTRAINED}/{draw}" for draw in range(UNTRAINED_DRAWS)))
FLOAT, EIGHT_BIT, NOISE = "float", "8bit", "noise"
"""Variants of an image: as attacked, rounded to 256 levels, and with random noise in the place of the attack."""
BENIGN = "benign"
"""Precedes the name of a benign change in the variant of a natural image: ``benign/<change>``."""
BENIGN_FIGURE = "validation_benign_fpr_05"
"""Column of the worst share of false alarms under a benign change, on validation images."""
VARIANTS = (FLOAT, EIGHT_BIT, NOISE, BENIGN)
UNCHANGED = "unchanged"
"""In the place of a benign change: the natural images as they are."""
IMPERSONATION, DODGING = "impersonation", "dodging"
"""Aims of an attack on verification: to pass for another person, or not to be recognised."""
GATE_DETECTOR: Literal["detector"] = "detector"
GATE_SIMILARITY: Literal["similarity"] = "similarity"
GATE_BOTH: Literal["both"] = "both"
"""Forms of a gate for verification: a detector that asks about the class, the similarity in the twin, or both."""
BOTH_SIMILARITIES = "both_similarities"
"""Judge of attacks on a gate that asks the twin: the class that is most similar in network and twin."""
KNOWS, TWIN_DIGEST = "knows", "twin"
"""Metadata of attacked images: the form of the gate, and the twin, that they were made against."""
EARLY: Literal["early"] = "early"
CONFIDENT: Literal["confident"] = "confident"
"""Forms of an attack: stopped at the decision boundary, or carried on past it."""
UNSEEN = "unseen"
"""In the place of a form, where detectors are tested: an early attack that none of them learns from."""
TESTED_FORMS = (EARLY, CONFIDENT, UNSEEN)


_SHARD = re.compile(
    rf"(?:(?P<variant>{EIGHT_BIT}|{NOISE})/)?(?:{NATURAL}|(?P<attack>[^/]+)/(?P<criterion>[^/]+))"
    r"/(?P<split>[^/]+)-(?P<number>\d+)"
)


class ShardKey(NamedTuple):
    """Name of a shard of images.

    Attributes:
        attack: Configured name, or ``natural``.
        criterion: ``targeted`` or ``untargeted``; ``none`` for natural images.
        split: ``train``, ``validation`` or ``test``.
        number: Position among the shards of the same attack, criterion and split.
        variant: ``float``; ``8bit`` or ``noise``, which precede the key of the images that they are made from; or
            ``benign/<change>``, which stands in the place of ``natural``.
    """

    attack: str
    criterion: str
    split: str
    number: int
    variant: str = FLOAT

    @classmethod
    def parse(cls, text: str) -> ShardKey:
        """Read ``[<variant>/]<attack>/<criterion>/<split>-<number>`` or ``[<variant>/]natural/<split>-<number>``.

        ``benign/<change>/<split>-<number>`` is a variant of natural images.

        Args:
            text: The key as it is written.

        Returns:
            Its parts.

        Raises:
            ValueError: It is no key of images.
        """
        found = _SHARD.fullmatch(text)
        if found is None:
            raise ValueError(
                f"shard key: expected [<variant>/]<attack>/<criterion>/<split>-<number>, natural/<split>-<number> or "
                f"benign/<change>/<split>-<number>, got {text!r}"
            )
        variant, attack, criterion, split, number = found.groups()
        if attack == BENIGN:
            return cls(NATURAL, NO_CRITERION, split, int(number), f"{BENIGN}/{criterion}")
        return cls(attack or NATURAL, criterion or NO_CRITERION, split, int(number), variant or FLOAT)

    @property
    def group(self) -> str:
        """``natural`` or ``<attack>/<criterion>``."""
        return NATURAL if self.attack == NATURAL else f"{self.attack}/{self.criterion}"

    @property
    def natural(self) -> ShardKey:
        """Key of the unattacked images of the same split and number: all shards of a split are cut alike."""
        return ShardKey(NATURAL, NO_CRITERION, self.split, self.number)

    @property
    def variant_kind(self) -> str:
        """The variant without the name of a benign change: ``float``, ``8bit``, ``noise`` or ``benign``."""
        return self.variant.partition("/")[0]

    @property
    def place(self) -> str:
        """``<split>-<number>``: the same for all attacks on the same images."""
        return f"{self.split}-{self.number:04d}"

    @property
    def text(self) -> str:
        """The key as it is written."""
        if self.variant_kind == BENIGN:
            return f"{self.variant}/{self.place}"
        plain = f"{self.group}/{self.place}"
        return plain if self.variant == FLOAT else f"{self.variant}/{plain}"


class DetectorKey(NamedTuple):
    """Name of a detector.

    Attributes:
        configuration: Configured name.
        criterion: ``targeted``, ``untargeted`` or ``both``; ``none`` where it learned from no attack.
        trained_on: ``all``, ``without-<attack>``, ``reference``, ``clean`` or ``nothing``.
        seed: Of initial weights and batches.
    """

    configuration: str
    criterion: str
    trained_on: str
    seed: int

    @classmethod
    def parse(cls, text: str) -> DetectorKey:
        """Read ``<configuration>/<criterion>/<trained_on>/<seed>``."""
        configuration, criterion, trained_on, seed = text.split("/")
        return cls(configuration, criterion, trained_on, int(seed))

    @property
    def text(self) -> str:
        """The key as it is written."""
        return "/".join(map(str, self))


class FeatureKey(NamedTuple):
    """Name of a shard of features of clean images of one class.

    Attributes:
        label: The class.
        number: Position among the shards of the class.
    """

    label: int
    number: int

    @classmethod
    def parse(cls, text: str) -> FeatureKey:
        """Read ``<class>/<number>``."""
        label, number = text.split("/")
        return cls(int(label), int(number))

    @property
    def text(self) -> str:
        """The key as it is written."""
        return f"{self.label:05d}/{self.number:04d}"
