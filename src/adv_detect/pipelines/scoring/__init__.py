"""Verdicts on a user's own pictures."""

from adv_detect.pipelines.scoring.pipeline import create_pipeline

__all__ = ["create_pipeline"]
