"""Split of the source images and attacks on the network."""

from adv_detect.pipelines.adversarial_generation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
