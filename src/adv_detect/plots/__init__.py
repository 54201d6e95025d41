"""Figures, each a matplotlib ``Figure`` made from arrays; drawing and saving is left to the caller."""

from __future__ import annotations

from adv_detect.plots.benign import benign_heat_map
from adv_detect.plots.distributions import distance_distributions, score_histograms
from adv_detect.plots.gate import gate_figure
from adv_detect.plots.grid import Example, adversarial_grid
from adv_detect.plots.monitoring import flag_rate_figure
from adv_detect.plots.overview import auc_overview, train_test_figure
from adv_detect.plots.roc import roc_figure
from adv_detect.plots.style import figure_bytes
from adv_detect.plots.training import training_curves
from adv_detect.plots.trajectory import mean_trajectory_figure

__all__ = [
    "Example",
    "adversarial_grid",
    "auc_overview",
    "benign_heat_map",
    "distance_distributions",
    "figure_bytes",
    "flag_rate_figure",
    "gate_figure",
    "mean_trajectory_figure",
    "roc_figure",
    "score_histograms",
    "train_test_figure",
    "training_curves",
]
