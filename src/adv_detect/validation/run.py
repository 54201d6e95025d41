"""Checks of a run that need the images, the classes, or results of earlier pipelines."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

from adv_detect.errors import AdvDetectError, ConfigurationError
from adv_detect.fields import Block
from adv_detect.params import (
    AdaptiveAttackParams,
    AdversarialGenerationParams,
    DetectorTrainingParams,
    EvaluationParams,
    FaceRecognitionParams,
    NetworkParams,
    RuntimeParams,
    ServingParams,
    SplitParams,
)
from adv_detect.validation.adaptive import check_adaptive_block, check_trained
from adv_detect.validation.faces import check_faces
from adv_detect.validation.numbers import check_image_numbers

if TYPE_CHECKING:
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

LOGGER = logging.getLogger(__name__)
BlockT = TypeVar("BlockT", bound=Block)


def block_of(catalog: DataCatalog, name: str, kind: type[BlockT]) -> BlockT | None:
    """Read a typed block of parameters.

    Args:
        catalog: Datasets and parameters of a run.
        name: Name of the block.
        kind: Its type.

    Returns:
        The block, or None where the configuration has none.
    """
    key = f"params:{name}"
    if key not in catalog:
        return None
    value: Any = catalog.load(key)
    return value if isinstance(value, kind) else kind.model_validate(value)


def check_numbers(catalog: DataCatalog) -> None:
    """Check that each split has images enough.

    Args:
        catalog: Datasets and parameters of a run.

    Raises:
        ConfigurationError: A configured limit is too low.
        DataError: There are too few images.
    """
    check_image_numbers(
        catalog.load("test_images").labels.numpy(),
        splits=block_of(catalog, "splits", SplitParams) or SplitParams(),
        seed=(block_of(catalog, "runtime", RuntimeParams) or RuntimeParams()).seed,
        attacks=block_of(catalog, "adversarial_generation", AdversarialGenerationParams),
        evaluation=block_of(catalog, "evaluation", EvaluationParams),
    )


def warn_of_nothing_left_out(params: DetectorTrainingParams, attacks: AdversarialGenerationParams | None) -> None:
    """Say where ``leave_one_out`` asks for something, but training has no attack to spare or no single criterion.

    Args:
        params: The detectors.
        attacks: The attacks.
    """
    if attacks is None or not params.leave_one_out:
        return
    trained = [one.criteria for one in attacks.active.values() if one.train]
    if not any(sum(criterion in one for one in trained) > 1 for criterion in params.criteria):
        LOGGER.warning(
            "detector_training.leave_one_out: %s: expected at least two attacks with train: true of one of "
            "the criteria %s, got %d attacks; no detector is trained without one of them",
            ", ".join(params.leave_one_out),
            [criterion for criterion in params.criteria if criterion != "both"],
            len(trained),
        )


def check_rates(catalog: DataCatalog) -> None:
    """Check that the served rate is one of those whose thresholds are fixed.

    Args:
        catalog: Datasets and parameters of a run.

    Raises:
        ConfigurationError: It is not.
    """
    serving = block_of(catalog, "serving", ServingParams)
    evaluation = block_of(catalog, "evaluation", EvaluationParams)
    if serving is not None and evaluation is not None and serving.fpr not in evaluation.fprs:
        raise ConfigurationError(
            f"serving.fpr: expected one of evaluation.fprs {list(evaluation.fprs)}, got {serving.fpr}"
        )


def check_further(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Check the blocks of the pipelines that follow the main job.

    Args:
        pipeline: The nodes that will run.
        catalog: Datasets and parameters of a run.

    Raises:
        ConfigurationError: A value cannot work.
        DataError: The images do not allow what is asked for.
    """
    inputs = {name for node in pipeline.nodes for name in node.inputs}
    training = block_of(catalog, "detector_training", DetectorTrainingParams)
    adaptive = block_of(catalog, "adaptive_attack", AdaptiveAttackParams)
    if adaptive is not None and training is not None and "params:adaptive_attack" in inputs:
        check_adaptive_block(
            adaptive,
            training=training,
            attacks=block_of(catalog, "adversarial_generation", AdversarialGenerationParams),
            network=block_of(catalog, "network", NetworkParams),
        )
        _check_substitute_network(adaptive, catalog)
        if "detectors" in pipeline.inputs():  # trained by an earlier run
            check_trained(adaptive, training, catalog.load("detectors"))
    faces = block_of(catalog, "face_recognition", FaceRecognitionParams)
    if faces is not None and "verification_images" in inputs:
        runtime = block_of(catalog, "runtime", RuntimeParams) or RuntimeParams()
        check_faces(
            faces,
            images=catalog.load("verification_images"),
            pairs=catalog.load("verification_pairs") if faces.pairs.source == "file" else "",
            seed=runtime.seed,
            gallery_sizes=_gallery_sizes(faces, catalog),
        )


def _check_substitute_network(params: AdaptiveAttackParams, catalog: DataCatalog) -> None:
    """Build the attacker's own network, where one is configured and used."""
    from adv_detect.images import shape_of
    from adv_detect.networks.target import build_target

    network = params.substitute.network
    if network is None or not any(spec.role == "transfer" for spec in params.active.values()):
        return
    images = catalog.load("train_images")
    try:
        build_target(network, class_names=images.class_names, image_shape=shape_of(images))
    except AdvDetectError as exc:
        raise ConfigurationError(f"adaptive_attack.substitute.{exc}") from exc


def _gallery_sizes(params: FaceRecognitionParams, catalog: DataCatalog) -> dict[str, int]:
    """Number of known faces by kind of gallery, as far as results on disk say it."""
    if not catalog.exists("features"):
        return {}
    store = catalog.load("features")
    kept = [(store.metadata(key)["label"], len(store.metadata(key)["source_ids"])) for key in store]
    classes = len({label for label, count in kept if count})
    return {kind: sum(count for _, count in kept) if kind == "images" else classes for kind in params.galleries}
