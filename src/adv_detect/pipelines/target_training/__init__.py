"""The network under attack: trained, or read from a checkpoint."""

from adv_detect.pipelines.target_training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
