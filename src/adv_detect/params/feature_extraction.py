"""Extraction of the features of training images."""

from __future__ import annotations

from adv_detect.fields import Block, Count


class FeatureExtractionParams(Block):
    """Which training images the class representatives come from."""

    max_images_per_class: Count | None = None
