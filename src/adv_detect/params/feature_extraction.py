"""Block ``feature_extraction``: extraction of the features of training images."""

from __future__ import annotations

from adv_detect.fields import Block, Count


class FeatureExtractionParams(Block):
    """Choice of the training images that the class representatives are fitted to."""

    max_images_per_class: Count | None = None
