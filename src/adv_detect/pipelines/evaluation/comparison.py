"""Nodes that compare all detectors."""

from __future__ import annotations

import pandas as pd

from adv_detect.absent import Absent
from adv_detect.algorithms.representatives import Representatives
from adv_detect.jobs.detectors import restore
from adv_detect.jobs.joint_models import TIMED, measure_costs
from adv_detect.measures.leaderboard import OF_CONFIGURATION, compared_detectors, measured_leaderboard
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import EvaluationParams, RuntimeParams
from adv_detect.sharding import ShardStore


def measure_detector_costs(
    adversarials: ShardStore,
    network_weights: TargetNetwork,
    representatives: Representatives,
    twin: TargetNetwork | Absent,
    detectors: ShardStore,
    control_detectors: ShardStore,
    detection_metrics: pd.DataFrame,
    runtime: RuntimeParams,
) -> pd.DataFrame:
    """Measure time and size of one detector of each compared configuration.

    Args:
        adversarials: Natural images among others.
        network_weights: The network under attack.
        representatives: Class representatives.
        twin: The second network.
        detectors: The trained detectors.
        control_detectors: The controls, of which the margin is compared.
        detection_metrics: What was measured of which detector.
        runtime: Where to score.

    Returns:
        The table that :func:`adv_detect.jobs.joint_models.measure_costs` describes.
    """
    first = compared_detectors(detection_metrics).drop_duplicates(OF_CONFIGURATION)["detector"]
    stored = [restore(detectors if key in detectors else control_detectors, str(key), representatives) for key in first]
    natural = next(iter(adversarials.select(natural=True, split="test").values())).tensors["images"][:TIMED]
    second = None if isinstance(twin, Absent) else twin
    return measure_costs(stored, network_weights, second, natural, device=runtime.device)


def compare_detectors(
    detection_metrics: pd.DataFrame,
    auc_resamples: pd.DataFrame,
    benign_changes: pd.DataFrame,
    detector_costs: pd.DataFrame,
    evaluation: EvaluationParams,
) -> pd.DataFrame:
    """Put the figures of all configurations beside each other.

    Args:
        detection_metrics: The detection metrics.
        auc_resamples: Resamples of the mean areas.
        benign_changes: False alarms on benign changes.
        detector_costs: Time and size.
        evaluation: Level of confidence.

    Returns:
        The table that :func:`adv_detect.measures.leaderboard.measured_leaderboard` describes.
    """
    return measured_leaderboard(
        detection_metrics,
        auc_resamples,
        benign_changes,
        detector_costs,
        confidence_level=evaluation.confidence_level,
    )
