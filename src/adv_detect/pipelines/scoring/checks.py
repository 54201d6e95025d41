"""Checks of scoring before a run."""

from __future__ import annotations

from adv_detect.datasets.picture_files import KINDS
from adv_detect.errors import ConfigurationError
from adv_detect.params import ScoringParams
from adv_detect.validation.run import Run


def check(run: Run) -> None:
    """Check that there is something to score.

    Args:
        run: What is going to run.

    Raises:
        ConfigurationError: No pictures are named.
    """
    params = run.read_block(ScoringParams)
    if params is not None and params.images is None:
        raise ConfigurationError(f"scoring.images: expected {KINDS}, got null; say --params=scoring.images=FOLDER")
