"""Changes of images: views that detectors compare, and benign changes that should raise no alarm."""

from __future__ import annotations

from pydantic import Field

from adv_detect.fields import Arguments, Block


class ImageChangeParams(Block):
    """One change of an image."""

    kind: str
    """Registered name, or the dotted path of a function (images, bounds, **arguments) -> images."""
    arguments: Arguments = Field(default_factory=dict)
    """What the change takes."""


class BenignChangeParams(ImageChangeParams):
    """A change that an honest picture undergoes."""

    train: bool = True
    """``false`` keeps it out of the training of detectors that learn from benign changes, so that there are some whose
    false alarms nobody trained away.
    """
