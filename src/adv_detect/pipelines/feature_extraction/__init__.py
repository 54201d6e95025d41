"""Features of correctly classified training images, per class and layer."""

from adv_detect.pipelines.feature_extraction.pipeline import create_pipeline

__all__ = ["create_pipeline"]
