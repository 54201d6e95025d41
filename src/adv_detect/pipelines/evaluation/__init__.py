"""Scores, metrics, figures and the report."""

from adv_detect.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
