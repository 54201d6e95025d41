"""Watch over a log of scored images."""

from adv_detect.pipelines.monitoring.pipeline import create_pipeline

__all__ = ["create_pipeline"]
