"""Read-outs of trajectories by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from adv_detect.algorithms.detectors.trajectory.mlp import MLPReadout
from adv_detect.algorithms.detectors.trajectory.readout import TrajectoryReadout
from adv_detect.algorithms.detectors.trajectory.sequence import BidirectionalReadout, SequenceReadout
from adv_detect.errors import ConfigurationError, unknown_choice
from adv_detect.params import DetectorParams

READOUTS: dict[str, Callable[..., TrajectoryReadout]] = {
    one.kind: one for one in (SequenceReadout, BidirectionalReadout, MLPReadout)
}
"""Called with the number of layers, the number of classes and ``hidden``."""


def readout_kinds() -> tuple[str, ...]:
    """Name every registered read-out."""
    return tuple(READOUTS)


def build_readout(params: DetectorParams, *, layers: int, classes: int, seed: int = 0) -> TrajectoryReadout:
    """Make a detector with fresh weights on the CPU; the global random state stays as it is.

    Args:
        params: Its kind and width.
        layers: L, rows of a trajectory.
        classes: K, columns of a trajectory after ordering and cutting.
        seed: Decides the initial weights.

    Returns:
        A detector in training mode that still needs ``fit_standardisation``.

    Raises:
        ConfigurationError: The kind is unknown, or a size is below 1.
    """
    if params.kind not in READOUTS:
        raise unknown_choice("kind", params.kind, READOUTS)
    if layers < 1 or classes < 1:
        raise ConfigurationError(f"expected at least one layer and one class, got layers={layers}, classes={classes}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return READOUTS[params.kind](layers, classes, hidden=params.hidden)


def random_readout(
    params: DetectorParams, layers: int, classes: int, seed: int, trajectories: Tensor | None = None
) -> TrajectoryReadout:
    """Make a read-out that scores before it has learned anything; it costs what a trained one does.

    Args:
        params: Its kind and width.
        layers: L, rows of a trajectory.
        classes: K, columns of a trajectory.
        seed: Decides the weights.
        trajectories: Shape (N, L, K), what the standardisation is fitted on; None leaves distances as they are
            (mean 0, standard deviation 1).

    Returns:
        A detector in evaluation mode, ready to score.
    """
    detector = build_readout(params, layers=layers, classes=classes, seed=seed)
    if trajectories is None:
        detector.set_standardisation(torch.zeros(()), torch.ones(()))
    else:
        detector.fit_standardisation(trajectories)
    return detector.eval()
