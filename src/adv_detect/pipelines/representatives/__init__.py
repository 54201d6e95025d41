"""Medoids, centroids and whitening of each layer."""

from adv_detect.pipelines.representatives.pipeline import create_pipeline

__all__ = ["create_pipeline"]
