"""Detectors: activations of images to one score per image, higher = more likely adversarial."""

from __future__ import annotations

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import (
    Detector,
    FitData,
    FitHistory,
    LearnsFrom,
    Reads,
    score_activations,
)
from adv_detect.algorithms.detectors.controls import MarginDetector
from adv_detect.algorithms.detectors.joined import JoinedDetector
from adv_detect.algorithms.detectors.registry import (
    build_detector,
    detector_class,
    detector_kinds,
    is_differentiable,
    learns_from,
    needs_confident,
    reads_twin,
    with_members,
)
from adv_detect.algorithms.detectors.stored import StoredDetector, stored_tensors
from adv_detect.algorithms.detectors.trajectory import (
    BidirectionalReadout,
    MLPReadout,
    ReferenceName,
    SequenceReadout,
    TrajectoryDetector,
    TrajectoryReadout,
    build_readout,
    load_reference_detector,
    parse_reference_name,
    random_readout,
    readout_kinds,
    score_trajectories,
    untrained_detector,
)
from adv_detect.algorithms.detectors.twin import TwinDetector

__all__ = [
    "Activations",
    "BidirectionalReadout",
    "Detector",
    "FitData",
    "FitHistory",
    "JoinedDetector",
    "LearnsFrom",
    "MLPReadout",
    "MarginDetector",
    "Reads",
    "ReferenceName",
    "SequenceReadout",
    "StoredDetector",
    "TrajectoryDetector",
    "TrajectoryReadout",
    "TwinDetector",
    "build_detector",
    "build_readout",
    "detector_class",
    "detector_kinds",
    "is_differentiable",
    "learns_from",
    "load_reference_detector",
    "needs_confident",
    "parse_reference_name",
    "random_readout",
    "readout_kinds",
    "reads_twin",
    "score_activations",
    "score_trajectories",
    "stored_tensors",
    "untrained_detector",
    "with_members",
]
