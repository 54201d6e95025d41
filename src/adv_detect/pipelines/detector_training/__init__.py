"""Trajectories, detectors and the model for the registry."""

from adv_detect.pipelines.detector_training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
