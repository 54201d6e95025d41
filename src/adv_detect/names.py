"""Names that several tables, shards and modules share."""

from __future__ import annotations

from typing import NamedTuple

NATURAL = "natural"
"""In the place of an attack: unattacked images."""
NO_CRITERION = "none"
"""The criterion of natural images, and of a detector that learned from no attack."""
TARGETED, UNTARGETED = "targeted", "untargeted"
BOTH_CRITERIA = "both"
TRAINED_ON_ALL = "all"
"""In the place of what a detector was trained on: all attacks for training."""
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
IMPERSONATION, DODGING = "impersonation", "dodging"
"""Aims of an attack on verification: to pass for another person, or not to be recognised."""
EARLY, CONFIDENT = "early", "confident"
"""Forms of an attack: stopped at the decision boundary, or carried on past it."""


class ShardKey(NamedTuple):
    """Name of a shard of images.

    Attributes:
        attack: Configured name, or ``natural``.
        criterion: ``targeted`` or ``untargeted``; ``none`` for natural images.
        split: ``train``, ``validation`` or ``test``.
        number: Position among the shards of the same attack, criterion and split.
        variant: ``float``, or what precedes the key of the attacked images: ``8bit``, ``noise``.
    """

    attack: str
    criterion: str
    split: str
    number: int
    variant: str = FLOAT

    @classmethod
    def parse(cls, text: str) -> ShardKey:
        """Read ``[<variant>/]<attack>/<criterion>/<split>-<number>`` or ``natural/<split>-<number>``."""
        *front, last = text.split("/")
        split, _, number = last.rpartition("-")
        if front[-1:] == [NATURAL]:
            front.append(NO_CRITERION)
        variant, attack, criterion = [FLOAT, *front][-3:]
        return cls(attack, criterion, split, int(number), variant)

    @property
    def group(self) -> str:
        """``natural`` or ``<attack>/<criterion>``."""
        return NATURAL if self.attack == NATURAL else f"{self.attack}/{self.criterion}"

    @property
    def natural(self) -> ShardKey:
        """Key of the unattacked images of the same split and number: all shards of a split are cut alike."""
        return ShardKey(NATURAL, NO_CRITERION, self.split, self.number)

    @property
    def text(self) -> str:
        """The key as it is written."""
        plain = f"{self.group}/{self.split}-{self.number:04d}"
        return plain if self.variant == FLOAT else f"{self.variant}/{plain}"
