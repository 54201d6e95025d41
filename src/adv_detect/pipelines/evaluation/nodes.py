"""Nodes that measure detectors."""

from __future__ import annotations

import pandas as pd

from adv_detect.absent import Absent
from adv_detect.algorithms.attacks.registry import attacks_on_features
from adv_detect.algorithms.representatives import Representatives
from adv_detect.jobs.activation_plans import ActivationBlock, activation_plan, twin_that_is_read
from adv_detect.jobs.detectors import configurations_of, views_of
from adv_detect.measures.benign_changes import first_seed_detectors
from adv_detect.measures.class_false_alarms import class_false_alarms
from adv_detect.measures.detection_metrics import measure_scores
from adv_detect.measures.detector_keys import MARGIN, describe_detectors
from adv_detect.measures.score_parts import ScoreParts
from adv_detect.names import EIGHT_BIT, NATURAL, NOISE, ShardKey
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import AdversarialGenerationParams, EvaluationParams, Norm, RuntimeParams
from adv_detect.pipelines.evaluation.scoring import ScoreBlock, ScoreWork, limits_of
from adv_detect.sharding import ShardPlan, ShardSpec, ShardStore, fingerprint


def compute_control_activations(
    adversarials: ShardStore,
    network_weights: TargetNetwork,
    representatives: Representatives,
    twin: TargetNetwork | Absent,
    detectors: ShardStore,
    adversarial_generation: AdversarialGenerationParams,
    runtime: RuntimeParams,
) -> ShardPlan:
    """Plan the activations of two variants of every attacked test image.

    The variants are the image rounded to 8 bits, as a file would hold it, and the source image with random noise of
    the same norm as the attack's perturbation.

    Args:
        adversarials: Attacked and natural images.
        network_weights: The network under attack.
        representatives: Class representatives, which judge attacks on deep features.
        twin: The second network.
        detectors: The trained detectors, for what they read.
        adversarial_generation: The attacks, for their norms.
        runtime: Seed, batch size, device, engine.

    Returns:
        A plan with the shards ``8bit/<attack>/...`` and ``noise/<attack>/...``.
    """
    blocks = {}
    attacks = adversarial_generation.active
    for text in adversarials.select(split="test", attack=attacks.keys()):
        key = ShardKey.parse(text)
        attack = attacks[key.attack]
        norm: Norm = "linf" if attack.norm == "linf" else "l2"
        seed = int(fingerprint(runtime.seed, key.place)[:8], 16)  # the same for all attacks on an image
        blocks[key._replace(variant=EIGHT_BIT).text] = ActivationBlock(shard=text, variant="8bit")
        blocks[key._replace(variant=NOISE).text] = ActivationBlock(shard=text, variant="noise", norm=norm, seed=seed)
    views, second = views_of(detectors), twin_that_is_read(twin, configurations_of(detectors))
    return activation_plan(
        adversarials, network_weights, representatives, blocks, runtime=runtime, views=views, twin=second
    )


def score_images(  # noqa: PLR0913
    activations: ShardStore,
    control_activations: ShardStore,
    detectors: ShardStore,
    control_detectors: ShardStore,
    thresholds: pd.DataFrame,
    representatives: Representatives,
    adversarial_generation: AdversarialGenerationParams,
    evaluation: EvaluationParams,
    runtime: RuntimeParams,
) -> ShardPlan:
    """Plan the scores of every test image by every detector, and of the clean validation images beside them.

    Args:
        activations: Activations of natural and attacked images.
        control_activations: Activations of rounded and of noisy images.
        detectors: The trained detectors.
        control_detectors: The controls.
        thresholds: The thresholds of both.
        representatives: Class representatives.
        adversarial_generation: The attacks, to tell unseen ones apart.
        evaluation: The false-positive rates of the verdicts.
        runtime: Engine, progress.

    Returns:
        A plan with a shard for each of activations, which :class:`adv_detect.measures.score_parts.ScoreParts` reads.
    """
    limits, forms = limits_of(thresholds, evaluation.fprs), adversarial_generation.tested_forms
    shared = fingerprint(detectors.digest, control_detectors.digest, limits)
    made_from = activations.fingerprints() | control_activations.fingerprints()
    shards = []
    for store, key in _scored_shards(activations, control_activations):
        block = ScoreBlock(store, key, forms.get(ShardKey.parse(key).attack))
        shards.append(ShardSpec(key, fingerprint(shared, made_from[key], block.form), block))
    work = ScoreWork((detectors, control_detectors), representatives, limits)
    return ShardPlan(work=work, shards=tuple(shards), runtime=runtime, description="scores", one_thread=True)


def measure_detection(
    scores: ShardStore,
    detector_summary: pd.DataFrame,
    adversarial_generation: AdversarialGenerationParams,
    evaluation: EvaluationParams,
    runtime: RuntimeParams,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Measure every detector on every attack, with intervals.

    Args:
        scores: Scores of all images by all detectors.
        detector_summary: One row per trained detector.
        adversarial_generation: The attacks, to tell those on features apart.
        evaluation: Number of resamples, level of confidence.
        runtime: Seed of the resamples; whether progress is shown.

    Returns:
        The table that :func:`adv_detect.measures.detection_metrics.measure_scores` describes, twice: for parquet and
        for CSV; and the resamples that detectors are compared by.
    """
    table, resamples = measure_scores(
        ScoreParts(scores),
        describe_detectors(detector_summary),
        on_features=attacks_on_features(adversarial_generation.active),
        resamples=evaluation.bootstrap,
        confidence_level=evaluation.confidence_level,
        seed=runtime.seed,
        progress=runtime.progress,
    )
    return table, table, resamples


def measure_classes(
    scores: ShardStore, detector_summary: pd.DataFrame, evaluation: EvaluationParams, runtime: RuntimeParams
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure the false alarms of detectors on the clean test images of each class.

    Args:
        scores: Scores of all images by all detectors.
        detector_summary: One row per trained detector.
        evaluation: Level of confidence.
        runtime: Seed of the test whether classes differ.

    Returns:
        The table that :func:`adv_detect.measures.class_false_alarms.class_false_alarms` describes, twice: for parquet
        and for CSV.
    """
    level = evaluation.confidence_level
    compared = [*first_seed_detectors(detector_summary), MARGIN]
    clean = ScoreParts(scores).table(compared, splits=("test",), attacks=(NATURAL,))
    table = class_false_alarms(clean, detector_summary, confidence_level=level, seed=runtime.seed)
    return table, table


def _scored_shards(activations: ShardStore, controls: ShardStore) -> list[tuple[ShardStore, str]]:
    """All of the test split and the natural images of the validation split, in the order of their keys; variants."""
    own = sorted({*activations.select(split="test"), *activations.select(split="validation", natural=True)})
    return [*((activations, key) for key in own), *((controls, key) for key in controls)]
