"""Nodes that measure detectors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from adv_detect.algorithms.detection_metrics import metric_table
from adv_detect.algorithms.detector_keys import CONTROL_KEYS, MARGIN
from adv_detect.algorithms.detector_keys import detector_summary as describe
from adv_detect.algorithms.representatives import Representatives
from adv_detect.algorithms.thresholds import thresholds_at_fpr
from adv_detect.algorithms.trajectories import trajectory_columns
from adv_detect.errors import DataError
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import (
    AdversarialGenerationParams,
    DetectorParams,
    DetectorTrainingParams,
    EvaluationParams,
    Norm,
    RuntimeParams,
)
from adv_detect.pipelines.detector_training.nodes import best_detector, read_by_detectors, trajectory_plan
from adv_detect.pipelines.detector_training.rows import NATURAL
from adv_detect.pipelines.detector_training.work import TrajectoryBlock
from adv_detect.pipelines.evaluation.scoring import (
    FloatArray,
    Scorer,
    describe_images,
    join_scores,
    load_scorers,
    score_shard,
    with_verdicts,
)
from adv_detect.progress import track
from adv_detect.sharding import ShardPlan, ShardStore, fingerprint

SCORED_SPLITS = ("validation", "test")
SUMMARY_FIGURES = ("validation_macro_auc", "validation_macro_auc_all")


def compute_control_trajectories(
    adversarials: ShardStore,
    network_weights: TargetNetwork,
    representatives: Representatives,
    detector_training: DetectorTrainingParams,
    adversarial_generation: AdversarialGenerationParams,
    runtime: RuntimeParams,
) -> ShardPlan:
    """Plan the trajectories of two variants of every attacked test image.

    The variants are the image rounded to 8 bits, as a file would hold it, and the source image with random noise of
    the same norm as the attack's perturbation.

    Args:
        adversarials: Attacked and natural images.
        network_weights: The network under attack.
        representatives: Class representatives.
        detector_training: The detector configurations.
        adversarial_generation: The attacks, for their norms.
        runtime: Seed, batch size, device, engine.

    Returns:
        A plan with the shards ``8bit/<attack>/...`` and ``noise/<attack>/...``.
    """
    blocks = {}
    for key in adversarials.keys():  # noqa: SIM118 - a store is no dictionary
        attack = adversarial_generation.active.get(key.split("/")[0])
        if attack is None or not key.rsplit("/", 1)[1].startswith("test-"):
            continue
        blocks[f"8bit/{key}"] = TrajectoryBlock(shard=key, variant="8bit")
        norm: Norm = "linf" if attack.norm == "linf" else "l2"
        seed = int(fingerprint(runtime.seed, key.rsplit("/", 1)[1])[:8], 16)  # the same for all attacks on an image
        blocks[f"noise/{key}"] = TrajectoryBlock(shard=key, variant="noise", norm=norm, seed=seed)
    columns = trajectory_columns(read_by_detectors(detector_training))
    return trajectory_plan(adversarials, network_weights, representatives, blocks, columns=columns, runtime=runtime)


def score_images(
    trajectories: ShardStore,
    control_trajectories: ShardStore,
    detectors: ShardStore,
    detector_summary: pd.DataFrame,
    evaluation: EvaluationParams,
    runtime: RuntimeParams,
) -> pd.DataFrame:
    """Score every test image with every detector and control, and the clean validation images beside them.

    Args:
        trajectories: Trajectories of natural and attacked images.
        control_trajectories: Trajectories of rounded and of noisy images.
        detectors: The trained detectors.
        detector_summary: Their validation figures; the best gives the untrained control its shape.
        evaluation: The false-positive rates of the verdicts.
        runtime: Whether progress is shown.

    Returns:
        One row per image x detector; the columns are those of
        :func:`adv_detect.pipelines.evaluation.scoring.join_scores` and a verdict per false-positive rate.

    Raises:
        DataError: The detectors were trained without thresholds at these rates.
    """
    untrained = best_detector(detector_summary)
    scorers = [*load_scorers(detectors, untrained), Scorer(MARGIN, None, DetectorParams(), {})]
    fprs = tuple(float(f"{fpr:g}") for fpr in evaluation.fprs)  # as they are written beside a detector
    _check_rates(scorers, fprs)
    frames: list[pd.DataFrame] = []
    parts: dict[str, list[FloatArray]] = {scorer.key: [] for scorer in scorers}
    shards = _scored_shards(trajectories, control_trajectories)
    for store, key in track(shards, "scores", unit="shards", shown=runtime.progress):
        content = store.read(key)
        frames.append(describe_images(content))
        for scorer in scorers:
            parts[scorer.key].append(score_shard(content, scorer))
    scores = join_scores(
        pd.concat(frames, ignore_index=True), {key: np.concatenate(part) for key, part in parts.items()}
    )
    thresholds = {one.key: one.thresholds or _on_validation(scores, one.key, fprs) for one in scorers}
    return with_verdicts(scores, thresholds)


def measure_detection(
    scores: pd.DataFrame,
    detector_summary: pd.DataFrame,
    detector_training: DetectorTrainingParams,
    adversarial_generation: AdversarialGenerationParams,
    evaluation: EvaluationParams,
    runtime: RuntimeParams,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure every detector on every attack, with intervals.

    Args:
        scores: One row per image x detector.
        detector_summary: One row per trained detector.
        detector_training: The configurations.
        adversarial_generation: The attacks, to tell those on features apart.
        evaluation: Number of resamples, level of confidence.
        runtime: Seed of the resamples; whether progress is shown.

    Returns:
        The table that :func:`adv_detect.algorithms.detection_metrics.metric_table` describes, twice: for parquet and
        for CSV.
    """
    table = metric_table(
        scores,
        describe_detectors(detector_summary, detector_training),
        on_features=adversarial_generation.on_features,
        resamples=evaluation.bootstrap,
        confidence_level=evaluation.confidence_level,
        seed=runtime.seed,
        progress=runtime.progress,
    )
    return table, table


def describe_detectors(summary: pd.DataFrame, params: DetectorTrainingParams) -> pd.DataFrame:
    """Describe trained detectors and controls, with the validation figures of the former.

    Args:
        summary: One row per trained detector.
        params: The configurations.

    Returns:
        One row per detector or control; figures of controls are NaN.
    """
    configurations = params.active | {
        str(row["configuration"]): DetectorParams(
            kind=row["kind"], representative=row["representative"], distance=row["distance"], order=row["order"]
        )
        for row in summary.to_dict("records")
    }
    described = describe([*summary["detector"], *CONTROL_KEYS], configurations)
    return described.merge(summary[["detector", *SUMMARY_FIGURES]], on="detector", how="left")


def _check_rates(scorers: list[Scorer], fprs: tuple[float, ...]) -> None:
    for scorer in scorers:
        if scorer.thresholds and set(scorer.thresholds) != set(fprs):
            raise DataError(
                f"evaluation.fprs: detector {scorer.key!r} on disk has thresholds at {sorted(scorer.thresholds)}, got "
                f"{list(fprs)}; thresholds are fixed in training, so run `kedro run --pipeline=detector_training` first"
            )


def _scored_shards(trajectories: ShardStore, controls: ShardStore) -> list[tuple[ShardStore, str]]:
    own = [(trajectories, key) for key in trajectories.keys() if _is_scored(key)]  # noqa: SIM118 - no dictionary
    return own + [(controls, key) for key in controls.keys()]  # noqa: SIM118


def _is_scored(key: str) -> bool:
    """All of the test split, and the natural images of the validation split."""
    split = key.rsplit("/", 1)[1].split("-", 1)[0]
    return split == "test" or (split == "validation" and key.startswith(f"{NATURAL}/"))


def _on_validation(scores: pd.DataFrame, detector: str, fprs: tuple[float, ...]) -> dict[float, float]:
    clean = scores["score"][
        (scores["detector"] == detector) & (scores["split"] == "validation") & (scores["attack"] == NATURAL)
    ]
    return thresholds_at_fpr(torch.tensor(clean.to_numpy(dtype=float)), fprs)
