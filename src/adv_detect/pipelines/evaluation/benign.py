"""Nodes that measure false alarms on benignly changed images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adv_detect import plots
from adv_detect.absent import Absent
from adv_detect.algorithms.detectors import StoredDetector, score_activations
from adv_detect.algorithms.representatives import Representatives
from adv_detect.jobs.activation_plans import activation_plan, twin_that_is_read
from adv_detect.jobs.benign_changes import benign_blocks, read_change
from adv_detect.jobs.detectors import best_detector, configurations_of, restore, views_of
from adv_detect.measures.benign_changes import benign_metrics, benign_table, change_rows, first_seed_detectors
from adv_detect.measures.detector_keys import MARGIN, describe_detectors
from adv_detect.names import UNCHANGED
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import EvaluationParams, RuntimeParams
from adv_detect.pipelines.evaluation.scoring import limits_of
from adv_detect.sharding import ShardPlan, ShardStore
from adv_detect.sharding.pool import do_all

CLASSES = ("label", "predicted", "before")


def compute_benign_activations(
    adversarials: ShardStore,
    network_weights: TargetNetwork,
    representatives: Representatives,
    twin: TargetNetwork | Absent,
    detectors: ShardStore,
    evaluation: EvaluationParams,
    runtime: RuntimeParams,
) -> ShardPlan:
    """Plan the activations of the natural test images after every benign change, rounded to 8 bits.

    Args:
        adversarials: Natural images among others.
        network_weights: The network under attack.
        representatives: Class representatives.
        twin: The second network.
        detectors: The trained detectors, for what they read.
        evaluation: The changes.
        runtime: Seed of the noise, batch size, device, engine.

    Returns:
        A plan with the shards ``benign/<change>/test-<number>``.
    """
    blocks = benign_blocks(adversarials, evaluation.active_benign_changes, seed=runtime.seed)
    views, second = views_of(detectors), twin_that_is_read(twin, configurations_of(detectors))
    return activation_plan(
        adversarials, network_weights, representatives, blocks, runtime=runtime, views=views, twin=second
    )


@dataclass(frozen=True)
class ChangeWork:
    """Scores the images after one change with every compared detector, which are read from disk once.

    Attributes:
        activations: Activations of unchanged images.
        benign: Activations of changed ones.
        detectors: The trained detectors.
        controls: The controls, of which the margin is scored.
        compared: Keys of the trained detectors that are scored.
        representatives: Class representatives.
    """

    activations: ShardStore
    benign: ShardStore
    detectors: ShardStore
    controls: ShardStore
    compared: tuple[str, ...]
    representatives: Representatives

    def __call__(self, change: str) -> tuple[dict[str, NDArray[np.int64]], dict[str, NDArray[np.float32]]]:
        """Give the classes of the images, and their scores by detector."""
        images = read_change(self.activations, self.benign, change)
        scores = {one.key: score_activations(one.detector, images.activations).numpy() for one in self._restored}
        return {part: getattr(images, part).numpy() for part in CLASSES}, scores

    @cached_property
    def _restored(self) -> list[StoredDetector]:
        compared = [restore(self.detectors, key, self.representatives) for key in self.compared]
        return [*compared, restore(self.controls, MARGIN, self.representatives)]


def measure_benign_changes(  # noqa: PLR0913
    benign_activations: ShardStore,
    activations: ShardStore,
    detectors: ShardStore,
    control_detectors: ShardStore,
    detector_summary: pd.DataFrame,
    thresholds: pd.DataFrame,
    representatives: Representatives,
    evaluation: EvaluationParams,
    runtime: RuntimeParams,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    """Measure the false alarms of detectors on benignly changed images, at thresholds fixed on clean ones.

    Args:
        benign_activations: Activations of the changed images.
        activations: Activations of the unchanged ones.
        detectors: The trained detectors.
        control_detectors: The controls.
        detector_summary: One row per trained detector.
        thresholds: The thresholds of both.
        representatives: Class representatives.
        evaluation: The changes, the false-positive rates, the level of confidence.
        runtime: Number of processes; whether progress is shown.

    Returns:
        The table that :func:`adv_detect.measures.benign_changes.benign_table` describes, for parquet and for CSV, and
        metrics for MLflow. It holds the margin and, of each configuration and criterion, the detector of the first seed
        that learned from everything.
    """
    best, changes = best_detector(detector_summary), evaluation.active_benign_changes
    compared = tuple(first_seed_detectors(detector_summary))
    work = ChangeWork(activations, benign_activations, detectors, control_detectors, compared, representatives)
    names = [UNCHANGED, *changes]
    limits, rows = limits_of(thresholds, evaluation.fprs), []
    scored = do_all(work, names, runtime, title="benign changes", unit="changes")
    for name, (classes, scores) in zip(names, scored, strict=True):
        rows += change_rows(name, classes, scores, limits, confidence_level=evaluation.confidence_level)
    table = benign_table(rows, describe_detectors(detector_summary), changes)
    return table, table, benign_metrics(table, best)


def draw_benign_changes(benign_changes: pd.DataFrame) -> dict[str, Any]:
    """Draw the false alarms of detectors on benign changes.

    Args:
        benign_changes: The table of false alarms.

    Returns:
        The figure ``benign_changes``.
    """
    return {"benign_changes": plots.benign_heat_map(benign_changes)}
