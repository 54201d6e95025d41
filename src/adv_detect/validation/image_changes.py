"""Checks of views and benign changes, before any work."""

from __future__ import annotations

from adv_detect.algorithms.detectors.registry import detector_reads, needed_views
from adv_detect.algorithms.image_changes import build_change
from adv_detect.algorithms.views import Views
from adv_detect.errors import ConfigurationError
from adv_detect.params import DetectorTrainingParams, EvaluationParams

ANY_RANGE = (0.0, 1.0)


def check_views(params: DetectorTrainingParams) -> None:
    """Build every view, and look for those that detectors read.

    Args:
        params: Detectors and views.

    Raises:
        ConfigurationError: A view cannot be made, or a detector reads one that is not configured.
    """
    Views.build(params.active_views, ANY_RANGE)
    for name, one in params.active.items():
        try:
            detector_reads(one)
        except ConfigurationError as exc:
            raise ConfigurationError(f"detector_training.configurations.{name}.{exc}") from exc
    needed_views(params.active, params.active_views)


def check_benign_changes(params: EvaluationParams) -> None:
    """Build every benign change.

    Args:
        params: The changes.

    Raises:
        ConfigurationError: One of them cannot be made.
    """
    for name, one in params.active_benign_changes.items():
        build_change(f"evaluation.benign_changes.{name}", one)
