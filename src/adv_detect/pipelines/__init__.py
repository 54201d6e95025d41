"""Pipelines: wiring only; the maths is in adv_detect.algorithms."""
