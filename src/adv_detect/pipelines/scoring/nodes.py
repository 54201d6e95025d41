"""Nodes that score pictures and judge them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from adv_detect.algorithms.device import resolve_device
from adv_detect.datasets.picture_files import list_pictures
from adv_detect.datasets.served_models import ServedModels
from adv_detect.errors import ConfigurationError
from adv_detect.measures.verdicts import VerdictSummary, summarise
from adv_detect.params import RuntimeParams, ScoringParams, ServingParams
from adv_detect.pipelines.scoring.page import scoring_page
from adv_detect.pipelines.scoring.picture_shards import most_pixels, scoring_plan
from adv_detect.serving.pictures import PictureScorer
from adv_detect.serving.verdicts import Judge
from adv_detect.sharding import ShardPlan, ShardStore

LOGGER = logging.getLogger(__name__)


def open_scoring_model(served_models: ServedModels, scoring: ScoringParams, serving: ServingParams) -> Judge:
    """Open the model that scores, and check that it is one of this environment with thresholds.

    Args:
        served_models: Opens models.
        scoring: Which model, and the two rates.
        serving: Name of the model that this environment registers.

    Returns:
        The model with its rates.

    Raises:
        ConfigurationError: It belongs to another environment.
        DataError: There is none, or it has no thresholds.
    """
    bundle, version = served_models.open(scoring.model)
    name = bundle.metadata["name"]
    if name != serving.name and not scoring.other_environments:
        raise ConfigurationError(
            f"scoring.model: expected a model of this environment, {serving.name!r}, got {scoring.model!r}, which is "
            f"{name!r}; run the environment that it belongs to (--env=...), or say scoring.other_environments=true"
        )
    judge = Judge(bundle, review=scoring.review, reject=scoring.reject, model_version=version)
    if judge.unsupported:
        LOGGER.warning(
            "scoring: rates %s rest on %d clean images, fewer than 1 in each: their threshold is the largest clean "
            "score, and the rate on new pictures may be several times as high",
            ", ".join(f"{rate:g}" for rate in judge.unsupported), judge.n_clean,
        )  # fmt: skip
    if bundle.bands is None:
        LOGGER.warning("scoring: model %s holds no bands of natural images, so layers explain nothing", version)
    return judge


def score_pictures(scoring_model: Judge, scoring: ScoringParams, runtime: RuntimeParams) -> ShardPlan:
    """Plan the scores of all pictures.

    Args:
        scoring_model: The model.
        scoring: Where the pictures lie.
        runtime: Size of a shard, device, engine.

    Returns:
        The plan.
    """
    pictures = list_pictures(str(scoring.images), column=scoring.column)
    LOGGER.info("scoring: %d files in %s, model %s", len(pictures.files), scoring.images, scoring_model.model_version)
    device = str(resolve_device(runtime.device))
    scorer = PictureScorer(scoring_model.bundle, device=device, max_pixels=most_pixels())
    return scoring_plan(pictures, scorer, runtime)


@dataclass(frozen=True)
class VerdictParts:
    """Tables of verdicts, shard by shard; each is made when it is asked for."""

    scored: ShardStore
    judge: Judge

    def __iter__(self) -> Iterator[pd.DataFrame]:
        """Judge one shard after the other."""
        return (self.judge.table(content) for content in self.scored.values())


def judge_pictures(scored_pictures: ShardStore, scoring_model: Judge) -> tuple[VerdictParts, VerdictParts]:
    """Judge all scored pictures.

    Args:
        scored_pictures: Scores and explanations.
        scoring_model: The model, its thresholds at the two rates.

    Returns:
        The table of verdicts in parts, for parquet and for CSV.
    """
    parts = VerdictParts(scored_pictures, scoring_model)
    return parts, parts


def summarise_verdicts(
    scored_pictures: ShardStore, scoring_model: Judge, scoring: ScoringParams
) -> tuple[VerdictSummary, dict[str, float]]:
    """Count verdicts and keep the most suspicious pictures.

    Args:
        scored_pictures: Scores and explanations.
        scoring_model: The model.
        scoring: How many pictures are shown.

    Returns:
        The summary, and its numbers for the tracking server.
    """
    summary = summarise(VerdictParts(scored_pictures, scoring_model), scoring_model.rates, show=scoring.show)
    for line in summary.sentences(scoring_model.n_clean):
        LOGGER.info("scoring: %s", line)
    for line in summary.warnings():
        LOGGER.warning("scoring: %s", line)
    return summary, summary.metrics


def write_scoring_page(scoring_summary: VerdictSummary, scoring_model: Judge, scoring: ScoringParams) -> str:
    """Write the page: how many, against what clean pictures would give, the most suspicious, the unreadable.

    Args:
        scoring_summary: What came out.
        scoring_model: The model.
        scoring: Where the pictures lie.

    Returns:
        One HTML file.
    """
    return scoring_page(scoring_summary, scoring_model, scoring)
