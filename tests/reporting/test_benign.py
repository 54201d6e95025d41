"""The section and the sentence on benign changes, in words that follow from the table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from adv_detect.measures.benign_changes import benign_table, change_rows
from adv_detect.measures.detector_keys import describe_detectors
from adv_detect.params import BenignChangeParams
from adv_detect.reporting.benign import benign_note, benign_section
from adv_detect.reporting.blocks import Figure, Note, Table
from adv_detect.reporting.results import EvaluationResults

KEY = "ours/both/all/0"
CHANGES = {"blur-1": BenignChangeParams(kind="blur"), "gamma-0.8": BenignChangeParams(kind="gamma", train=False)}
FLAGGED = {"unchanged": 5, "blur-1": 41, "gamma-0.8": 9}


def described() -> pd.DataFrame:
    summary = {"detector": KEY, "configuration": "ours", "kind": "lstm", "representative": "medoid"}
    summary |= {"distance": "cosine", "order": "fixed", "trained_criterion": "both", "trained_on": "all", "seed": 0}
    figures = {"validation_macro_auc": 0.9, "validation_macro_auc_all": 0.9}
    return describe_detectors(pd.DataFrame([summary | figures]))


def results(flagged: dict[str, int] = FLAGGED, **further: Any) -> EvaluationResults:
    """Of 100 images so many are flagged."""
    rows = []
    for change, count in flagged.items():
        scores = pd.Series(range(100)).lt(count).to_numpy(dtype="float32")
        classes = dict.fromkeys(("label", "predicted", "before"), pd.Series([0] * 100).to_numpy())
        limits = {KEY: {"05": 0.5}, "margin": {"05": 1.5}}
        rows += change_rows(change, classes, {KEY: scores, "margin": scores}, limits, confidence_level=0.95)
    return EvaluationResults(
        metrics=pd.DataFrame({"criterion": ["targeted"], "attack": ["bim"]}),
        detectors=described(),
        attack_records=pd.DataFrame(),
        network={},
        images={},
        registered=KEY,
        benign=benign_table(rows, described(), CHANGES),
        **further,
    )


def test_the_sentence_names_the_worst_change():
    (note,) = benign_note(results())

    assert isinstance(note, Note)
    assert note.tone == "caution"
    assert "nominal 5%: **41.0%** on blur-1 (95% interval 31.9% to 50.8%, n = 100)" in note.text
    assert "5.0% on unchanged images" in note.text


def test_few_false_alarms_need_no_caution():
    (note,) = benign_note(results({"unchanged": 5, "blur-1": 10, "gamma-0.8": 9}))

    assert note.tone == "info"
    assert "**10.0%** on blur-1" in note.text


def test_the_section_shows_figure_and_table():
    section = benign_section(results(figures={"benign_changes": b"png"}))

    (figure,) = (block for block in section.blocks if isinstance(block, Figure))
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert figure.figure == b"png"
    assert table.frame["change"].tolist() == ["unchanged", "blur-1", "gamma-0.8*"]
    assert table.frame["n"].tolist() == [100] * 3
    assert table.frame[KEY].tolist()[1] == "41.0% (31.9 to 50.8)"
    assert table.frame["control: margin only"].tolist()[1] == "0.0% (0.0 to 3.7)"


@pytest.mark.parametrize("bare", [{"benign": pd.DataFrame()}, {"registered": None}])
def test_nothing_is_said_of_what_was_not_measured(bare):
    found = replace(results(), **bare)

    assert benign_note(found) == []
    if "benign" in bare:
        assert any(isinstance(block, Note) and "Not measured" in block.text for block in benign_section(found).blocks)
