"""Nodes that draw what an evaluation found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from adv_detect.algorithms import plots
from adv_detect.algorithms.detector_keys import describe_detectors
from adv_detect.algorithms.detectors import TrajectoryDetector
from adv_detect.algorithms.evaluation_tables import score_samples, train_test_matrix
from adv_detect.algorithms.representatives import Representatives
from adv_detect.jobs.activations import read_activations
from adv_detect.jobs.detectors import restore
from adv_detect.names import BOTH_CRITERIA, EARLY, NATURAL, ShardKey
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import DetectorTrainingParams, EvaluationParams
from adv_detect.reporting import chosen_detector
from adv_detect.sharding import ShardStore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAINED_ON = {BOTH_CRITERIA: "targeted and untargeted"}
HARDEST_FIRST = ("untargeted", "targeted")
GRID_SEPARATOR = "/"
SHOWN = ("auc_overview", "roc", "score_histograms", "mean_trajectory", "adversarial_grid", "train_test_matrix")


def draw_detection(
    scores: pd.DataFrame,
    detection_metrics: pd.DataFrame,
    detector_summary: pd.DataFrame,
    detector_histories: pd.DataFrame,
    detector_training: DetectorTrainingParams,
) -> dict[str, Any]:
    """Draw overview, ROC curves, score histograms, train x test matrices and training curves.

    Args:
        scores: One row per image x detector.
        detection_metrics: The detection metrics.
        detector_summary: One row per trained detector.
        detector_histories: One row per detector and epoch.
        detector_training: The configurations.

    Returns:
        Figures by ``<what>/<criterion>``.
    """
    described = describe_detectors(detector_summary)
    figures: dict[str, Any] = {}
    for criterion in _criteria(detection_metrics):
        key = chosen_detector(described, criterion)
        if key is not None:  # else no detector was trained for this criterion
            figures[f"auc_overview/{criterion}"] = plots.auc_overview(detection_metrics, criterion=criterion)
            natural, attacked = score_samples(scores, detector=key, criterion=criterion)
            title = f"{key}, {criterion} attacks"
            figures[f"roc/{criterion}"] = plots.roc_figure(natural, attacked, title=title)
            figures[f"score_histograms/{criterion}"] = plots.score_histograms(natural, attacked, title=title)
            figures[f"training_curves/{criterion}"] = _curves(detector_histories, described, criterion)
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


def show_figures(detection_figures: dict[str, Any], input_figures: dict[str, Any]) -> tuple[Any, ...]:
    """Pick one figure of each kind to look at by itself, of the harder criterion where there are two.

    Args:
        detection_figures: Figures of scores and metrics.
        input_figures: Figures of images and trajectories.

    Returns:
        Overview, ROC, histograms, mean trajectory, grid of adversarial examples, train x test matrix.
    """
    figures = detection_figures | input_figures
    return tuple(_pick(figures, name) for name in SHOWN)


def _pick(figures: Mapping[str, Figure], name: str) -> Figure:
    keys = [key for criterion in HARDEST_FIRST for key in figures if key.startswith(f"{name}/{criterion}")]
    return figures[keys[0]] if keys else _nothing(name)


def _nothing(name: str) -> Figure:
    from matplotlib.figure import Figure as MatplotlibFigure

    figure = MatplotlibFigure(figsize=(6.0, 1.0))
    figure.text(0.5, 0.5, f"{name.replace('_', ' ')}: not measured in this run", ha="center", va="center")
    return figure


def _criteria(metrics: pd.DataFrame) -> list[str]:
    """Criteria of which an early attack had a success, the harder one first."""
    measured = metrics.loc[(metrics["form"] == EARLY) & metrics["auc"].notna(), "criterion"].unique()
    return [name for name in HARDEST_FIRST if name in measured]


def _curves(histories: pd.DataFrame, described: pd.DataFrame, criterion: str) -> Figure:
    """Curves of the detectors of a criterion or, where there are none, of those trained on both."""
    whole = described[described["trained_on"] == "all"]
    kind = criterion if criterion in set(whole["trained_criterion"]) else BOTH_CRITERIA
    own = whole[whole["trained_criterion"] == kind]
    rows = {str(key): histories[histories["detector"] == key].to_dict("records") for key in own["detector"]}
    return plots.training_curves(rows, title=f"detectors trained on {TRAINED_ON.get(kind, kind)} attacks")


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
    for key in adversarials.keys():  # noqa: SIM118 - a store is no dictionary
        parsed = ShardKey.parse(key)
        if parsed.criterion != criterion or parsed.split != "test" or parsed.number:
            continue
        attacked, clean = adversarials.read(key), adversarials.read(parsed.natural.text).tensors
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
    keys = [(text, ShardKey.parse(text)) for text in store.keys()]  # noqa: SIM118 - a store is no dictionary
    tested = [(text, key) for text, key in keys if key.split == "test"]
    natural = _of_class(store, [text for text, key in tested if key.attack == NATURAL], detector, label)
    early = [text for text, key in tested if key.criterion == criterion and store.metadata(text)["form"] == EARLY]
    attacked = _of_class(store, early, detector, label)
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


def _of_class(store: ShardStore, keys: list[str], detector: TrajectoryDetector, label: int) -> Tensor:
    """Trajectories ``(n, L, C)`` of images that the network gives a class: naturals, and successes of attacks."""
    parts = []
    for key in keys:
        content = store.read(key)
        tensors = content.tensors
        kept = tensors["predicted"] == label
        kept &= (tensors["label"] == label) if ShardKey.parse(key).attack == NATURAL else tensors["success"]
        parts.append(detector.describe(read_activations(content).select(kept)))
    return torch.cat(parts) if parts else torch.zeros(0)
