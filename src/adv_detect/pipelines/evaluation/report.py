"""Nodes that write the report."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import pandas as pd
from pydantic import BaseModel

from adv_detect import __version__
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import AdversarialGenerationParams, DetectorTrainingParams, EvaluationParams
from adv_detect.pipelines.detector_training.nodes import best_detector
from adv_detect.pipelines.detector_training.rows import NATURAL
from adv_detect.pipelines.evaluation.nodes import describe_detectors
from adv_detect.reporting import EvaluationResults, Report, ReportPart, drawn_part, evaluation_sections, render_parts
from adv_detect.reporting.published import PUBLISHED_AUC

PACKAGES = ("foolbox", "kedro", "mlflow", "numpy", "scikit-learn", "torch", "torchvision")
NETWORK_FACTS = ("name", "num_classes", "image_shape", "bounds", "layers", "accuracy")
BLOCKS = (
    "runtime",
    "network",
    "splits",
    "target_training",
    "representatives",
    "adversarial_generation",
    "detector_training",
    "evaluation",
)


def write_evaluation_part(
    detection_metrics: pd.DataFrame,
    detector_summary: pd.DataFrame,
    attack_records: pd.DataFrame,
    source_splits: pd.DataFrame,
    network_weights: TargetNetwork,
    detection_figures: dict[str, Any],
    input_figures: dict[str, Any],
    parameters: dict[str, Any],
) -> ReportPart:
    """Write the sections of the report that every run has.

    Args:
        detection_metrics: The detection metrics.
        detector_summary: One row per trained detector.
        attack_records: One row per source image x attack x criterion.
        source_splits: The split of each source image.
        network_weights: The network under attack.
        detection_figures: Figures of scores and metrics.
        input_figures: Figures of images and trajectories.
        parameters: All parameters of the run.

    Returns:
        The sections, to be joined with those of further pipelines.
    """
    training = DetectorTrainingParams.model_validate(parameters["detector_training"])
    attacks = AdversarialGenerationParams.model_validate(parameters["adversarial_generation"])
    spec = network_weights.spec.model_dump(mode="json")
    results = EvaluationResults(
        metrics=detection_metrics,
        detectors=describe_detectors(detector_summary, training),
        attack_records=attack_records[attack_records["attack"] != NATURAL],
        network={name: spec[name] for name in NETWORK_FACTS},
        layers=layer_table(network_weights),
        images={f"{split} images": int(count) for split, count in source_splits["split"].value_counts().items()},
        figures=detection_figures | input_figures,
        versions=_versions(),
        parameters={name: _plain(parameters[name]) for name in BLOCKS if name in parameters},
        trained_attacks=[name for name, attack in attacks.active.items() if attack.train],
        registered=best_detector(detector_summary),
        published=PUBLISHED_AUC,
        confidence_level=EvaluationParams.model_validate(parameters["evaluation"]).confidence_level,
    )
    subtitle = f"{spec['name']}, {spec['num_classes']} classes, {len(source_splits):,} source images"
    report = Report("Detection of adversarial attacks", subtitle, evaluation_sections(results))
    return drawn_part(report, detectors_identity(detector_summary))


def layer_table(network: TargetNetwork) -> pd.DataFrame:
    """List how each layer of the network is read.

    Args:
        network: The network under attack.

    Returns:
        A row per layer: ``layer``, ``output``, ``channel axis``, ``width``, ``found by``.
    """
    rows = [
        {
            "layer": one.name,
            "output": f"(N, {', '.join(map(str, one.shape[1:]))})",
            "channel axis": str(one.channels),
            "width": str(one.width),
            "found by": one.found_by,
        }
        for one in network.spec.readings
    ]
    return pd.DataFrame(rows)


def render_report_file(evaluation_part: ReportPart, report_parts: Mapping[str, Callable[[], ReportPart]]) -> str:
    """Render the report from its parts, those of further pipelines included when they belong to the same detectors.

    Args:
        evaluation_part: The part that every run has.
        report_parts: All parts on disk, by name, each read when called.

    Returns:
        One self-contained HTML page.
    """
    further = [read() for name, read in sorted(report_parts.items()) if not name.startswith("evaluation")]
    return render_parts(evaluation_part, [part for part in further if part.made_from == evaluation_part.made_from])


def detectors_identity(summary: pd.DataFrame) -> str:
    """Say which detectors a part of the report speaks of, so that parts of another run are left out."""
    from adv_detect.sharding import fingerprint

    ordered = summary.sort_values("detector")
    return fingerprint(ordered["detector"].tolist(), [f"{value:.9f}" for value in ordered["validation_macro_auc"]])


def _versions() -> dict[str, str]:
    packages = {"adv-detect": __version__, **{name: version(name) for name in PACKAGES}}
    return packages | {
        "python": platform.python_version(), "system": platform.system(), "processor": platform.machine(),
    }  # fmt: skip


def _plain(block: Any) -> Any:
    return block.model_dump(mode="json") if isinstance(block, BaseModel) else block
