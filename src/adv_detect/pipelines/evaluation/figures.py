"""Nodes that draw and report what an evaluation found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from adv_detect import plots
from adv_detect.algorithms.detectors import TrajectoryDetector
from adv_detect.algorithms.representatives import Representatives
from adv_detect.jobs.activations import read_activations
from adv_detect.jobs.detectors import best_detector, restore
from adv_detect.measures.detector_keys import describe_detectors
from adv_detect.measures.evaluation_tables import score_samples, train_test_matrix
from adv_detect.measures.score_parts import ScoreParts
from adv_detect.names import BOTH_CRITERIA, EARLY, NATURAL, TARGETED, UNTARGETED, ShardKey
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import AdversarialGenerationParams, DetectorTrainingParams, EvaluationParams, RuntimeParams
from adv_detect.reporting import (
    LEADERBOARD,
    EvaluationResults,
    Report,
    ReportPart,
    chosen_detector,
    detectors_identity,
    draw_pictures,
    evaluation_sections,
)
from adv_detect.reporting.provenance import layer_table, network_facts, package_versions, run_parameters
from adv_detect.reporting.published import PUBLISHED_AUC
from adv_detect.sharding import ShardContent, ShardStore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAINED_ON = {BOTH_CRITERIA: "targeted and untargeted"}
HARDEST_FIRST = (UNTARGETED, TARGETED)
SHOWN = (
    "auc_overview",
    "roc",
    "score_histograms",
    "mean_trajectory",
    "adversarial_grid",
    "train_test_matrix",
    "benign_changes",
)


def draw_detection(
    scores: ShardStore,
    detection_metrics: pd.DataFrame,
    detector_summary: pd.DataFrame,
    detector_histories: pd.DataFrame,
    detector_training: DetectorTrainingParams,
) -> dict[str, Any]:
    """Draw overview, ROC curves, score histograms, train x test matrices and training curves.

    Args:
        scores: Scores of all images by all detectors.
        detection_metrics: The detection metrics.
        detector_summary: One row per trained detector.
        detector_histories: One row per detector and epoch.
        detector_training: The configurations.

    Returns:
        Figures by ``<what>/<criterion>``.
    """
    described, parts = describe_detectors(detector_summary), ScoreParts(scores)
    figures: dict[str, Any] = {}
    for criterion in _criteria(detection_metrics):
        key = chosen_detector(described, criterion)
        if key is not None:  # else no detector was trained for this criterion
            figures[f"auc_overview/{criterion}"] = plots.auc_overview(detection_metrics, criterion=criterion)
            rows = parts.table((key,), splits=("test",))
            natural, attacked = score_samples(rows, detector=key, criterion=criterion)
            title = f"{key}, {criterion} attacks"
            figures[f"roc/{criterion}"] = plots.roc_figure(natural, attacked, title=title)
            figures[f"score_histograms/{criterion}"] = plots.score_histograms(natural, attacked, title=title)
            figures |= _curves(detector_histories, described, criterion)
        figures |= _matrices(detection_metrics, detector_training.leave_one_out, criterion)
    return figures


def draw_inputs(
    adversarials: ShardStore,
    activations: ShardStore,
    network_weights: TargetNetwork,
    representatives: Representatives,
    detectors: ShardStore,
    detector_summary: pd.DataFrame,
    evaluation: EvaluationParams,
) -> dict[str, Any]:
    """Draw attacked images and the mean trajectories of one class.

    Args:
        adversarials: Attacked and natural images.
        activations: Their activations.
        network_weights: The network under attack, for class names, layers and pixel range.
        representatives: Class representatives.
        detectors: The trained detectors.
        detector_summary: One row per trained detector.
        evaluation: Which class and how many examples.

    Returns:
        Figures by ``<what>/<criterion>``.
    """
    described = describe_detectors(detector_summary)
    figures: dict[str, Any] = {}
    for criterion in HARDEST_FIRST:
        examples = list(_examples(adversarials, network_weights, criterion, evaluation.show_examples))
        if examples:
            figures[f"adversarial_grid/{criterion}"] = plots.adversarial_grid(
                examples, bounds=network_weights.spec.bounds, title=f"{criterion} attacks"
            )
        key = chosen_detector(described, criterion)
        if key is not None:
            detector = restore(detectors, key, representatives).detector
            if isinstance(detector, TrajectoryDetector):
                figures |= _mean_trajectories(activations, network_weights, detector, criterion, evaluation.show_class)
    return figures


def show_figures(
    detection_figures: dict[str, Any],
    input_figures: dict[str, Any],
    benign_figures: dict[str, Any],
    runtime: RuntimeParams,
) -> tuple[Any, ...]:
    """Draw all figures once, and pick one of each kind, of the harder criterion where there are two.

    Args:
        detection_figures: Figures of scores and metrics.
        input_figures: Figures of images and trajectories.
        benign_figures: Figures of benign changes.
        runtime: Number of processes; whether progress is shown.

    Returns:
        PNG files by name of the figure; those of overview, ROC, histograms, mean trajectory, grid of adversarial
        examples, train x test matrix, false alarms on benign changes.
    """
    pictures, shown = draw_pictures(detection_figures | input_figures | benign_figures, SHOWN, runtime)
    return pictures, *shown


def write_evaluation_part(  # noqa: PLR0913 - every table that the report shows
    detection_metrics: pd.DataFrame,
    benign_changes: pd.DataFrame,
    class_false_alarms: pd.DataFrame,
    measured_leaderboard: pd.DataFrame,
    detector_summary: pd.DataFrame,
    attack_records: pd.DataFrame,
    source_splits: pd.DataFrame,
    network_weights: TargetNetwork,
    evaluation_pictures: dict[str, bytes],
    parameters: dict[str, Any],
) -> ReportPart:
    """Write the sections of the report on network, attacks and detection.

    Args:
        detection_metrics: The detection metrics.
        benign_changes: The table of false alarms on benign changes.
        class_false_alarms: The table of false alarms by class.
        measured_leaderboard: The comparison of all configurations.
        detector_summary: One row per trained detector.
        attack_records: One row per source image x attack x criterion.
        source_splits: The split of each source image.
        network_weights: The network under attack.
        evaluation_pictures: PNG files of the figures.
        parameters: All parameters of the run.

    Returns:
        The sections, to be joined with those of further pipelines.
    """
    attacks = AdversarialGenerationParams.model_validate(parameters["adversarial_generation"])
    network = network_facts(network_weights)
    results = EvaluationResults(
        metrics=detection_metrics,
        benign=benign_changes,
        by_class=class_false_alarms,
        detectors=describe_detectors(detector_summary),
        attack_records=attack_records[attack_records["attack"] != NATURAL],
        network=network,
        class_names=network_weights.spec.class_names,
        layers=layer_table(network_weights),
        images={f"{split} images": int(count) for split, count in source_splits["split"].value_counts().items()},
        figures=evaluation_pictures,
        versions=package_versions(),
        parameters=run_parameters(parameters),
        trained_attacks=[name for name, attack in attacks.active.items() if attack.train],
        registered=best_detector(detector_summary),
        published=PUBLISHED_AUC,
        confidence_level=EvaluationParams.model_validate(parameters["evaluation"]).confidence_level,
    )
    subtitle = f"{network['name']}, {network['num_classes']} classes, {len(source_splits):,} source images"
    report = Report("Detection of adversarial attacks", subtitle, evaluation_sections(results))
    return ReportPart(report, detectors_identity(detector_summary), {LEADERBOARD: measured_leaderboard})


def _criteria(metrics: pd.DataFrame) -> list[str]:
    """Criteria of which an early attack had a success, the harder one first."""
    measured = metrics.loc[(metrics["form"] == EARLY) & metrics["auc"].notna(), "criterion"].unique()
    return [name for name in HARDEST_FIRST if name in measured]


def _curves(histories: pd.DataFrame, described: pd.DataFrame, criterion: str) -> dict[str, Figure]:
    """Curves of the detectors of a criterion, else of both criteria; none where no detector learns by epochs."""
    whole = described[described["trained_on"] == "all"]
    kind = criterion if criterion in set(whole["trained_criterion"]) else BOTH_CRITERIA
    own = whole[whole["trained_criterion"] == kind]
    rows = {str(key): histories[histories["detector"] == key].to_dict("records") for key in own["detector"]}
    if not any(rows.values()):
        return {}
    title = f"detectors trained on {TRAINED_ON.get(kind, kind)} attacks"
    return {f"training_curves/{criterion}": plots.training_curves(rows, title=title)}


def _matrices(metrics: pd.DataFrame, configurations: tuple[str, ...], criterion: str) -> dict[str, Figure]:
    figures = {}
    for name in configurations:
        matrix = train_test_matrix(metrics, configuration=name, criterion=criterion)
        if not matrix.empty:
            figures[f"train_test_matrix/{criterion}/{name}"] = plots.train_test_figure(
                matrix, title=f"{name}, {criterion} attacks"
            )
    return figures


def _examples(adversarials: ShardStore, network: TargetNetwork, criterion: str, count: int) -> Iterator[plots.Example]:
    """The first successes of each attack on test images, with their clean versions."""
    names = network.spec.class_names
    for key in adversarials.select(criterion=criterion, split="test"):
        parsed = ShardKey.parse(key)
        if parsed.number:
            continue
        attacked, clean = adversarials[key], adversarials[parsed.natural.text].tensors
        row_of = {index: row for row, index in enumerate(clean["source_index"].tolist())}
        for row in torch.nonzero(attacked.tensors["success"]).flatten().tolist()[:count]:
            source = row_of[int(attacked.tensors["source_index"][row])]
            yield plots.Example(
                attack=parsed.attack,
                clean=clean["images"][source],
                adversarial=attacked.tensors["images"][row],
                clean_class=names[int(clean["predicted"][source])],
                adversarial_class=names[int(attacked.tensors["predicted"][row])],
            )


def _mean_trajectories(
    store: ShardStore, network: TargetNetwork, detector: TrajectoryDetector, criterion: str, label: int
) -> dict[str, Figure]:
    params = detector.params
    natural = _of_class(store.select(split="test", natural=True).values(), detector, label)
    tested = store.select(split="test", criterion=criterion)
    attacked = _of_class((tested[key] for key in tested if tested.metadata(key)["form"] == EARLY), detector, label)
    if not len(natural) or not len(attacked):
        return {}
    figure = plots.mean_trajectory_figure(
        natural,
        attacked,
        predicted_class=label,
        layers=network.spec.layers,
        distance=params.distance,
        class_name=network.spec.class_names[label],
        title=f"{criterion} attacks, {params.representative}, {params.distance}",
    )
    return {f"mean_trajectory/{criterion}": figure}


def _of_class(shards: Iterable[ShardContent], detector: TrajectoryDetector, label: int) -> Tensor:
    """Trajectories ``(n, L, C)`` of images that the network gives a class: naturals, and successes of attacks."""
    parts = []
    for content in shards:
        tensors = content.tensors
        kept = tensors["predicted"] == label
        kept &= (tensors["label"] == label) if content.metadata["attack"] == NATURAL else tensors["success"]
        parts.append(detector.describe(read_activations(content).select(kept)))
    return torch.cat(parts) if parts else torch.zeros(0)
