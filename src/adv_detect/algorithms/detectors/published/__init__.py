"""Detectors of others: each in one file, with its source and the settings of its paper."""

from __future__ import annotations

from adv_detect.algorithms.detectors.published.adapter import adapted, is_library_detector
from adv_detect.algorithms.detectors.published.dknn import DkNNDetector
from adv_detect.algorithms.detectors.published.kde import KDEDetector
from adv_detect.algorithms.detectors.published.lid import LIDDetector
from adv_detect.algorithms.detectors.published.mahalanobis import MahalanobisDetector
from adv_detect.algorithms.detectors.published.nic import NICDetector
from adv_detect.algorithms.detectors.published.squeezing import SqueezingDetector

__all__ = [
    "DkNNDetector",
    "KDEDetector",
    "LIDDetector",
    "MahalanobisDetector",
    "NICDetector",
    "SqueezingDetector",
    "adapted",
    "is_library_detector",
]
