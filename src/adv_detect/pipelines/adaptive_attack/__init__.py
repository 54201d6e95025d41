"""Attacks on network and detector together, and what is left of a detector that the attacker knows."""

from adv_detect.pipelines.adaptive_attack.pipeline import create_pipeline

__all__ = ["create_pipeline"]
