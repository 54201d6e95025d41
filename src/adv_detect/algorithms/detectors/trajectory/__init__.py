"""Detectors that read trajectories: distances to class representatives, layer by layer."""

from __future__ import annotations

from adv_detect.algorithms.detectors.trajectory.detector import TrajectoryDetector, untrained_detector
from adv_detect.algorithms.detectors.trajectory.mlp import MLPReadout
from adv_detect.algorithms.detectors.trajectory.readout import TrajectoryReadout, score_trajectories
from adv_detect.algorithms.detectors.trajectory.reference import (
    ReferenceName,
    load_reference_detector,
    parse_reference_name,
)
from adv_detect.algorithms.detectors.trajectory.registry import build_readout, random_readout, readout_kinds
from adv_detect.algorithms.detectors.trajectory.sequence import BidirectionalReadout, SequenceReadout

__all__ = [
    "BidirectionalReadout",
    "MLPReadout",
    "ReferenceName",
    "SequenceReadout",
    "TrajectoryDetector",
    "TrajectoryReadout",
    "build_readout",
    "load_reference_detector",
    "parse_reference_name",
    "random_readout",
    "readout_kinds",
    "score_trajectories",
    "untrained_detector",
]
