"""The one report, from the parts of all pipelines that have run."""

from adv_detect.pipelines.reporting.pipeline import create_pipeline

__all__ = ["create_pipeline"]
