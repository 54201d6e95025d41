"""Detectors: trajectories of shape (N, L, K) to one logit per image, higher = more likely adversarial."""

from __future__ import annotations

from adv_detect.algorithms.detectors.base import TrajectoryDetector, score_trajectories
from adv_detect.algorithms.detectors.mlp import MLPDetector
from adv_detect.algorithms.detectors.reference import ReferenceName, load_reference_detector, parse_reference_name
from adv_detect.algorithms.detectors.registry import build_detector, detector_kinds, random_detector
from adv_detect.algorithms.detectors.sequence import BidirectionalDetector, SequenceDetector

__all__ = [
    "BidirectionalDetector",
    "MLPDetector",
    "ReferenceName",
    "SequenceDetector",
    "TrajectoryDetector",
    "build_detector",
    "detector_kinds",
    "load_reference_detector",
    "parse_reference_name",
    "random_detector",
    "score_trajectories",
]
