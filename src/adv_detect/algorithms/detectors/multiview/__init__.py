"""Detectors that read ranked distances, logit gaps, neighbours and views together."""
