"""Checks of evaluation before a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from adv_detect.algorithms.attacks.registry import attacks_on_features
from adv_detect.algorithms.detectors.registry import detector_reads
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.jobs.activations import read_fingerprint
from adv_detect.measures.detector_keys import rate_label, rate_text
from adv_detect.measures.score_parts import LIMITS
from adv_detect.params import AdversarialGenerationParams, DetectorParams, EvaluationParams
from adv_detect.sharding import ShardStore
from adv_detect.validation.image_changes import check_benign_changes
from adv_detect.validation.run import Run, some_of


def check(run: Run) -> None:
    """Check that what lies on disk belongs together and has what is measured and shown.

    Args:
        run: What is going to run.

    Raises:
        ConfigurationError: The class to show or an attack does not exist, or a rate has no threshold or is not the one
            that scores were held against.
        DataError: Detectors or activations belong to other images than those on disk: detectors may have learned from
            the images that they would be measured on.
    """
    params = run.read_block(EvaluationParams)
    if params is not None and run.class_names is not None and params.show_class >= len(run.class_names):
        raise ConfigurationError(
            f"evaluation.show_class: expected below {len(run.class_names)}, got {params.show_class}"
        )
    if params is not None:
        check_benign_changes(params)
    attacks = run.read_block(AdversarialGenerationParams)
    if attacks is not None:
        attacks_on_features(attacks.active)
    if {"adversarials", "activations"} <= run.from_disk:
        _check_activations(run)
    if {"detectors", "activations"} <= run.from_disk:
        _check_detectors(run)
    if params is not None and "thresholds" in run.from_disk:
        _check_thresholds(run, params)
    if params is not None and "scores" in run.from_disk:
        _check_scores(run, params)


def _check_activations(run: Run) -> None:
    images, stored = run.catalog.load("adversarials").fingerprints(), run.catalog.load("activations")
    unchanged = set(stored.select())
    made_from = {key: stored.metadata(key).get("made_from") for key in stored.fingerprints() if key in unchanged}
    if set(images) != set(made_from) or any(one not in (None, images[key]) for key, one in made_from.items()):
        raise DataError(
            "activations: they belong to other images than those in adversarials, which were made anew since; run "
            "`kedro run --pipeline=detector_training` first, or `kedro run` for the whole job"
        )


def _check_detectors(run: Run) -> None:
    activations, detectors = run.catalog.load("activations"), run.catalog.load("detectors")
    stored, read = set(activations), cache(partial(read_fingerprint, activations))
    old = [key for key in detectors.fingerprints() if _learned_elsewhere(detectors.metadata(key), stored, read)]
    if old:
        raise DataError(
            f"detectors: {some_of(old)} learned from other activations than those on disk; run "
            "`kedro run --pipeline=detector_training` first, or `kedro run` for the whole job"
        )


def _learned_elsewhere(facts: dict[str, Any], stored: set[str], read: Callable[..., str | None]) -> bool:
    reads, learned = detector_reads(DetectorParams.model_validate(facts["params"])), facts.get("learned_from", {})
    return any(key not in stored or read(key, reads) != before for key, before in learned.items())


def _check_thresholds(run: Run, params: EvaluationParams) -> None:
    fixed = sorted(set(run.catalog.load("thresholds")["fpr"]))
    if not set(params.fprs) <= set(fixed):
        raise ConfigurationError(
            f"evaluation.fprs: thresholds were fixed at {fixed}, got {list(params.fprs)}; fix the others with "
            "`kedro run --pipeline=detector_training`, which trains no detector anew for that"
        )


def _check_scores(run: Run, params: EvaluationParams) -> None:
    scores: ShardStore = run.catalog.load("scores")
    held = list(scores.metadata(next(iter(scores)))[LIMITS])
    if set(held) != {rate_label(one) for one in params.fprs}:
        raise ConfigurationError(
            f"evaluation.fprs: the scores on disk were held against thresholds at {[rate_text(one) for one in held]}, "
            f"got {list(params.fprs)}; run `kedro run --pipeline=evaluation`, which makes them again"
        )
