"""Check that each split has images enough for what is measured on them."""

from __future__ import annotations

import logging
import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from adv_detect.algorithms.splits import split_sources
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.params import SPLITS, AdversarialGenerationParams, EvaluationParams, SplitParams

LOGGER = logging.getLogger(__name__)
LEAST_IMAGES = 10
"""Natural images in a split, and images that an attack takes of it.

With 10 against 10 the AUC of a detector that guesses has a standard deviation of sqrt(21 / 1200) = .13, so that only an
AUC above about .76 can be told from guessing; with 5 against 5 it is .19, and nothing below .88 can.
"""


def check_image_numbers(
    labels: NDArray[np.int64],
    *,
    splits: SplitParams,
    seed: int,
    attacks: AdversarialGenerationParams | None = None,
    evaluation: EvaluationParams | None = None,
) -> None:
    """Refuse splits and attacks of fewer than `LEAST_IMAGES` images; warn of rates that are beyond validation images.

    Args:
        labels: Class of each image to attack, shape ``(N,)``.
        splits: Their division.
        seed: Seed of the division.
        attacks: The attacks, for their own limits.
        evaluation: The false-positive rates.

    Raises:
        ConfigurationError: A configured limit is too low; the message says the least one.
        DataError: There are too few images.
    """
    least = _least_total(splits)
    if splits.max_images is not None and splits.max_images < least:
        raise ConfigurationError(
            f"splits.max_images: expected at least {least}, {_reason(splits)}, got {splits.max_images}"
        )
    if len(labels) < least:
        raise DataError(f"test_images: expected at least {least} images, {_reason(splits)}, got {len(labels)}")
    counts = Counter(split_sources(labels, params=splits, seed=seed).tolist())
    for split in SPLITS:  # whole classes go to a split by identity, however few images they have
        if counts[split] < LEAST_IMAGES:
            raise DataError(
                f"splits: expected at least {LEAST_IMAGES} images in the {split} split, got {counts[split]} (by: "
                f"{splits.by}); give more images, or a larger share of them to it"
            )
    _check_limits(attacks)
    if evaluation is not None:
        _warn_of_rates(evaluation.fprs, counts["validation"])


def _least_total(splits: SplitParams) -> int:
    """Return the fewest images of which each split gets enough."""
    least = math.ceil(LEAST_IMAGES / min(splits.train, splits.validation, splits.test) - 1e-9)
    return max(least, LEAST_IMAGES * len(SPLITS))


def _reason(splits: SplitParams) -> str:
    shares = {split: float(getattr(splits, split)) for split in SPLITS}
    smallest = min(shares, key=lambda split: shares[split])
    return f"so that the {smallest} split, a share of {shares[smallest]:g}, holds {LEAST_IMAGES} of them"


def _check_limits(attacks: AdversarialGenerationParams | None) -> None:
    for name, attack in attacks.active.items() if attacks else ():
        for key in ("max_images", "max_learning_images"):
            limit = getattr(attack, key)
            if limit is not None and limit < LEAST_IMAGES:
                raise ConfigurationError(
                    f"adversarial_generation.attacks.{name}.{key}: expected at least {LEAST_IMAGES} images of each "
                    f"split, got {limit}"
                )


def _warn_of_rates(fprs: tuple[float, ...], count: int) -> None:
    """Warn of rates at which less than one validation image passes: the threshold is their largest score."""
    poor = [fpr for fpr in sorted(fprs) if math.floor(fpr * count + 1e-9) < 1]
    if poor:
        LOGGER.warning(
            "evaluation.fprs: %s: expected at least %d clean validation images for these rates, got %d; their "
            "thresholds are the largest validation score, and the true rate may be several times as high: raise "
            "splits.max_images or splits.validation",
            ", ".join(f"{fpr:g}" for fpr in poor),
            math.ceil(1 / poor[0] - 1e-9),
            count,
        )
