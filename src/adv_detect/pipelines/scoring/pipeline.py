"""Wiring of scoring."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node

from adv_detect.pipelines.scoring.nodes import (
    judge_pictures,
    open_scoring_model,
    score_pictures,
    summarise_verdicts,
    write_scoring_page,
)


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from pictures and a model to verdicts."""
    return Pipeline(
        [
            node(
                open_scoring_model,
                inputs=["served_models", "params:scoring", "params:serving"],
                outputs="scoring_model",
                name="open_scoring_model",
            ),
            node(
                score_pictures,
                inputs=["scoring_model", "params:scoring", "params:runtime"],
                outputs="scored_pictures",
                name="score_pictures",
            ),
            node(
                judge_pictures,
                inputs=["scored_pictures", "scoring_model"],
                outputs=["verdicts", "verdicts_csv"],
                name="judge_pictures",
            ),
            node(
                summarise_verdicts,
                inputs=["scored_pictures", "scoring_model", "params:scoring"],
                outputs=["scoring_summary", "scoring_metrics"],
                name="summarise_verdicts",
            ),
            node(
                write_scoring_page,
                inputs=["scoring_summary", "scoring_model", "params:scoring"],
                outputs="scoring_page",
                name="write_scoring_page",
            ),
        ],
        tags="scoring",
    )
