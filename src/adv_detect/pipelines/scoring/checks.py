"""Checks of scoring before a run."""

from __future__ import annotations

from adv_detect.datasets.picture_files import KINDS, check_place
from adv_detect.errors import ConfigurationError
from adv_detect.params import ScoringParams
from adv_detect.serving.opening import CHAMPION, no_champion
from adv_detect.validation.run import Run


def check(run: Run) -> None:
    """Check that there is something to score, and something to score it with.

    Args:
        run: What is going to run.

    Raises:
        ConfigurationError: No pictures are named.
        DataError: There are none at that place, or this environment has no champion yet.
    """
    params = run.read_block(ScoringParams)
    if params is None:
        return
    if params.images is None:
        raise ConfigurationError(f"scoring.images: expected {KINDS}, got null; say --params=scoring.images=FOLDER")
    if "served_models" in run.inputs and params.model == CHAMPION:
        champion = run.catalog.load("served_models").champion
        if not champion.is_dir():
            raise no_champion(champion)
    check_place(params.images)
