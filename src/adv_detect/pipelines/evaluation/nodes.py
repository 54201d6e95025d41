"""Nodes that measure detectors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adv_detect.algorithms.attacks.registry import attacks_on_features
from adv_detect.algorithms.detectors import StoredDetector, score_activations
from adv_detect.algorithms.representatives import Representatives
from adv_detect.jobs.activations import ActivationBlock, activation_plan, natural_activations, read_activations
from adv_detect.jobs.detectors import best_detector, views_of
from adv_detect.measures.detection_metrics import metric_table
from adv_detect.measures.detector_keys import describe_detectors, rate_label
from adv_detect.names import EIGHT_BIT, NATURAL, NOISE, ShardKey
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import AdversarialGenerationParams, EvaluationParams, Norm, RuntimeParams
from adv_detect.pipelines.evaluation.scoring import (
    describe_images,
    join_scores,
    scored_detectors,
    with_verdicts,
)
from adv_detect.progress import track
from adv_detect.sharding import ShardPlan, ShardStore, fingerprint


def compute_control_activations(
    adversarials: ShardStore,
    network_weights: TargetNetwork,
    representatives: Representatives,
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
        detectors: The trained detectors, for the views that they read.
        adversarial_generation: The attacks, for their norms.
        runtime: Seed, batch size, device, engine.

    Returns:
        A plan with the shards ``8bit/<attack>/...`` and ``noise/<attack>/...``.
    """
    blocks = {}
    for text in adversarials.keys():  # noqa: SIM118 - a store is no dictionary
        key = ShardKey.parse(text)
        attack = adversarial_generation.active.get(key.attack)
        if attack is None or key.split != "test":
            continue
        norm: Norm = "linf" if attack.norm == "linf" else "l2"
        seed = int(fingerprint(runtime.seed, text.rsplit("/", 1)[1])[:8], 16)  # the same for all attacks on an image
        blocks[key._replace(variant=EIGHT_BIT).text] = ActivationBlock(shard=text, variant="8bit")
        blocks[key._replace(variant=NOISE).text] = ActivationBlock(shard=text, variant="noise", norm=norm, seed=seed)
    views = views_of(detectors)
    return activation_plan(adversarials, network_weights, representatives, blocks, runtime=runtime, views=views)


def score_images(
    activations: ShardStore,
    control_activations: ShardStore,
    detectors: ShardStore,
    detector_summary: pd.DataFrame,
    thresholds: pd.DataFrame,
    representatives: Representatives,
    evaluation: EvaluationParams,
    runtime: RuntimeParams,
) -> pd.DataFrame:
    """Score every test image with every detector and control, and the clean validation images beside them.

    Args:
        activations: Activations of natural and attacked images.
        control_activations: Activations of rounded and of noisy images.
        detectors: The trained detectors.
        detector_summary: Their validation figures; the best gives the untrained control its shape.
        thresholds: Their thresholds.
        representatives: Class representatives.
        evaluation: The false-positive rates of the verdicts.
        runtime: Whether progress is shown.

    Returns:
        One row per image x detector; the columns are those of
        :func:`adv_detect.pipelines.evaluation.scoring.join_scores` and a verdict per false-positive rate.
    """
    clean = natural_activations(activations, "validation")
    scored = scored_detectors(detectors, best_detector(detector_summary), representatives, clean)
    frames: list[pd.DataFrame] = []
    parts: dict[str, list[Tensor]] = {one.key: [] for one in scored}
    shards = _scored_shards(activations, control_activations)
    for store, key in track(shards, "scores", unit="shards", shown=runtime.progress):
        content = store.read(key)
        frames.append(describe_images(content))
        images = read_activations(content)
        for one in scored:
            parts[one.key].append(score_activations(one.detector, images))
    scores = {key: torch.cat(part) for key, part in parts.items()}
    table = join_scores(
        pd.concat(frames, ignore_index=True),
        {key: values.numpy().astype(np.float32) for key, values in scores.items()},
        {one.key: one.p_values(scores[one.key]).numpy().astype(np.float32) for one in scored},
    )
    return with_verdicts(table, _all_thresholds(thresholds, scored, evaluation.fprs))


def measure_detection(
    scores: pd.DataFrame,
    detector_summary: pd.DataFrame,
    adversarial_generation: AdversarialGenerationParams,
    evaluation: EvaluationParams,
    runtime: RuntimeParams,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure every detector on every attack, with intervals.

    Args:
        scores: One row per image x detector.
        detector_summary: One row per trained detector.
        adversarial_generation: The attacks, to tell those on features apart.
        evaluation: Number of resamples, level of confidence.
        runtime: Seed of the resamples; whether progress is shown.

    Returns:
        The table that :func:`adv_detect.measures.detection_metrics.metric_table` describes, twice: for parquet and
        for CSV.
    """
    table = metric_table(
        scores,
        describe_detectors(detector_summary),
        on_features=attacks_on_features(adversarial_generation.active),
        resamples=evaluation.bootstrap,
        confidence_level=evaluation.confidence_level,
        seed=runtime.seed,
        progress=runtime.progress,
    )
    return table, table


def _all_thresholds(fixed: pd.DataFrame, scored: list[StoredDetector], fprs: tuple[float, ...]) -> pd.DataFrame:
    """The thresholds on disk, and those of the controls, which are fixed on the same images."""
    missing = [one for one in scored if one.key not in set(fixed["detector"])]
    rows = [
        {"detector": one.key, "fpr": fpr, "rate": rate_label(fpr), "threshold": one.threshold(fpr)}
        for one in missing
        for fpr in fprs
    ]
    return pd.concat([fixed[fixed["fpr"].isin(fprs)], pd.DataFrame(rows)], ignore_index=True)


def _scored_shards(activations: ShardStore, controls: ShardStore) -> list[tuple[ShardStore, str]]:
    own = [(activations, key) for key in activations.keys() if _is_scored(ShardKey.parse(key))]  # noqa: SIM118
    return own + [(controls, key) for key in controls.keys()]  # noqa: SIM118 - a store is no dictionary


def _is_scored(key: ShardKey) -> bool:
    """All of the test split, and the natural images of the validation split."""
    return key.split == "test" or (key.split == "validation" and key.attack == NATURAL)
