"""Checks of twin_training before a run."""

from __future__ import annotations

from adv_detect.networks.twin import build_twin
from adv_detect.params import TwinTrainingParams
from adv_detect.validation.run import Run


def check(run: Run) -> None:
    """Build the twin of the network under attack.

    Args:
        run: What is going to run.

    Raises:
        ConfigurationError: The twin, or one of its arguments, is not usable.
    """
    params = run.read_block(TwinTrainingParams)
    if params is not None and params.network is not None:
        build_twin(run.target, params.network, head="softmax", seed=0)
