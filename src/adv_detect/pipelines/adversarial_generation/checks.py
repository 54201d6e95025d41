"""Checks of adversarial_generation before a run."""

from __future__ import annotations

from adv_detect.errors import ConfigurationError
from adv_detect.params import (
    AdversarialGenerationParams,
    DetectorTrainingParams,
    EvaluationParams,
    NetworkParams,
    RuntimeParams,
    SplitParams,
)
from adv_detect.validation.attacks import check_attacks
from adv_detect.validation.detectors import check_kinds
from adv_detect.validation.epsilon import warn_of_epsilons
from adv_detect.validation.numbers import check_image_numbers
from adv_detect.validation.run import Run


def check(run: Run) -> None:
    """Build every attack, and count the images of each split.

    Args:
        run: What is going to run.

    Raises:
        ConfigurationError: An attack, a size or a limit is not usable.
        DataError: There are too few images.
    """
    attacks, network = run.read_block(AdversarialGenerationParams), run.block(NetworkParams)
    detectors = run.block(DetectorTrainingParams)
    if attacks is not None and not attacks.active and detectors is not None and check_kinds(detectors):
        raise ConfigurationError(
            "adversarial_generation.attacks: expected at least one attack, got none: without any only detectors that "
            "learn from clean images, such as density, can be trained; set the others in "
            "detector_training.configurations to null"
        )
    if attacks is not None:
        check_attacks(attacks, network)
        if run.own_attacks is not None and network is not None:
            warn_of_epsilons(attacks, run.own_attacks, run.catalog.load("test_images"), network.bounds)
    splits = run.read_block(SplitParams)
    if splits is not None:
        check_image_numbers(
            run.catalog.load("test_images").labels.numpy(),
            splits=splits,
            seed=(run.block(RuntimeParams) or RuntimeParams()).seed,
            attacks=run.block(AdversarialGenerationParams),
            evaluation=run.block(EvaluationParams),
        )
