"""Checks of detector_training before a run."""

from __future__ import annotations

from adv_detect.algorithms.detectors import load_reference_detector
from adv_detect.algorithms.detectors.trajectory.mlp import MLPReadout
from adv_detect.errors import ConfigurationError
from adv_detect.params import (
    AdversarialGenerationParams,
    DetectorTrainingParams,
    EvaluationParams,
    NetworkParams,
    ServingParams,
)
from adv_detect.validation.attacks import check_attacks
from adv_detect.validation.detectors import check_changes, check_detectors, check_top_k, warn_of_nothing_left_out
from adv_detect.validation.image_changes import check_views
from adv_detect.validation.run import Run


def check(run: Run) -> None:
    """Check that every detector can be trained, and that the served rate has a threshold.

    Args:
        run: What is going to run.

    Raises:
        ConfigurationError: A detector, a published checkpoint or the served rate is not usable.
        CheckpointError: A published checkpoint cannot be read.
    """
    attacks = run.read_block(AdversarialGenerationParams)
    if attacks is not None:
        check_attacks(attacks, run.block(NetworkParams))
    detectors = run.read_block(DetectorTrainingParams)
    if detectors is not None:
        check_detectors(detectors, attacks)
        check_views(detectors)
        check_changes(detectors, run.block(EvaluationParams))
        warn_of_nothing_left_out(detectors, attacks)
        if run.class_names is not None:
            _check_published(detectors, len(run.class_names))
            check_top_k(detectors, len(run.class_names))
    serving, evaluation = run.read_block(ServingParams), run.block(EvaluationParams)
    if serving is not None and evaluation is not None and serving.fpr not in evaluation.fprs:
        raise ConfigurationError(
            f"serving.fpr: expected one of evaluation.fprs {list(evaluation.fprs)}, got {serving.fpr}"
        )


def _check_published(params: DetectorTrainingParams, classes: int) -> None:
    """Read every published checkpoint, and compare its number of classes with that of the data."""
    for name, path in params.reference_checkpoints.items():
        detector = load_reference_detector(path)
        if isinstance(detector, MLPReadout):
            fits, held = detector.inputs % classes == 0, f"{detector.inputs} inputs, no multiple of them"
        else:
            fits, held = detector.classes == classes, f"{detector.classes}"
        if not fits:
            raise ConfigurationError(
                f"detector_training.reference_checkpoints.{name}: expected a detector for the {classes} classes of "
                f"train_images, {path!r} is for {held}; give it the data that it was published with"
            )
