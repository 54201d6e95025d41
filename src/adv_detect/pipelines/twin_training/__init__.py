"""The twin: a second network for the same task, trained adversarially, that must not contradict the first."""

from adv_detect.pipelines.twin_training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
