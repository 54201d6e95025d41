"""Thresholds from clean pictures of a user's own."""

from adv_detect.pipelines.calibration.pipeline import create_pipeline

__all__ = ["create_pipeline"]
