"""Checks of detector_training before a run."""

from __future__ import annotations

from adv_detect.algorithms.detectors import load_reference_detector
from adv_detect.algorithms.detectors.trajectory.mlp import MLPReadout
from adv_detect.algorithms.splits import split_sources
from adv_detect.errors import ConfigurationError
from adv_detect.params import (
    AdversarialGenerationParams,
    DetectorTrainingParams,
    EvaluationParams,
    NetworkParams,
    RuntimeParams,
    ServingParams,
    SplitParams,
    TwinTrainingParams,
)
from adv_detect.validation.attacks import check_attacks
from adv_detect.validation.detectors import (
    check_arguments,
    check_changes,
    check_detectors,
    check_top_k,
    check_twin_is_there,
    warn_of_nothing_left_out,
)
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
        check_twin_is_there(detectors, run.block(TwinTrainingParams))
        check_views(detectors)
        check_changes(detectors, run.block(EvaluationParams))
        warn_of_nothing_left_out(detectors, attacks)
        if run.class_names is not None:
            _check_published(detectors, len(run.class_names))
            check_top_k(detectors, len(run.class_names))
            _check_arguments(run, detectors, run.class_names)
    serving, evaluation = run.read_block(ServingParams), run.block(EvaluationParams)
    if serving is not None and evaluation is not None and serving.fpr not in evaluation.fprs:
        raise ConfigurationError(
            f"serving.fpr: expected one of evaluation.fprs {list(evaluation.fprs)}, got {serving.fpr}"
        )


def _check_arguments(run: Run, detectors: DetectorTrainingParams, class_names: tuple[str, ...]) -> None:
    """Construct every detector, where it is known which layers are going to be read."""
    layers = run.layers
    if not layers or all(one.reads_trajectories for one in detectors.active.values()):
        return
    splits, clean = run.block(SplitParams), None
    if splits is not None and "test_images" in run.inputs:
        labels, seed = run.catalog.load("test_images").labels, (run.block(RuntimeParams) or RuntimeParams()).seed
        clean = int((split_sources(labels.numpy(), params=splits, seed=seed) == "train").sum())
    check_arguments(detectors, layers=layers, class_names=class_names, clean=clean)


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
