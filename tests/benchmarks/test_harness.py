"""The measuring itself: order of the two sides, verdicts, the document, the stages of a log."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from benchmarks.harness import Row, Settings, alternate, in_child
from benchmarks.main_job import stage_seconds
from benchmarks.table import markdown, slug_of, write_parquet, write_section

CPU = Settings(quick=False, device=torch.device("cpu"))


def test_both_sides_are_warmed_up_and_take_turns_in_being_first():
    calls = []

    ratios = alternate(lambda: calls.append("ours"), lambda: calls.append("other"), CPU, rounds=3)

    assert calls == ["ours", "other", "ours", "other", "other", "ours", "ours", "other"]
    assert len(ratios) == 3
    assert min(ratios) > 0


@pytest.mark.parametrize(
    ("ratios", "goal", "at_most", "verdict"),
    [
        ((1.0, 2.0, 5.0), 2.0, False, "met"),
        ((1.0, 1.9, 5.0), 2.0, False, "missed"),
        ((1.2, 1.1), 1.15, True, "met"),
        ((1.2, 1.2), 1.15, True, "missed"),
        ((1.0,), None, False, ""),
        ((math.nan,), 2.0, False, "missed"),
    ],
)
def test_the_median_is_held_against_the_goal(ratios, goal, at_most, verdict):
    assert Row("group", "name", ratios, "", goal, at_most).verdict == verdict


def test_a_child_gives_its_result_or_its_error():
    result, spent, memory = in_child(math.sqrt, 9.0)

    assert result == 3.0
    assert spent >= 0
    assert memory >= 0
    with pytest.raises(RuntimeError, match="ValueError"):
        in_child(math.sqrt, -1.0)


def test_a_section_is_replaced_and_words_around_it_stay(tmp_path):
    path = tmp_path / "docs" / "benchmarks.md"
    write_section(path, "one", "first")
    path.write_text(path.read_text() + "\nWhy it is so.\n")
    write_section(path, "two", "other machine")

    write_section(path, "one", "second")

    text = path.read_text()
    assert "first" not in text
    assert text.index("second") < text.index("Why it is so.") < text.index("other machine")


def test_the_table_holds_every_row(tmp_path):
    rows = [Row("attacks", "bim: foolbox / ours", (2.0, 3.0, 2.5), "n = 4", 2.0), Row("ray", "two", (1.5,), "", 1.7)]

    text = markdown(rows, "Processor X, 2 cores", "torch 1", quick=False)
    write_parquet(tmp_path / "b.parquet", rows, "Processor X", "torch 1")

    assert "| bim: foolbox / ours | 2.50 | 2.00 - 3.00 | >= 2 | met | n = 4 |" in text
    assert "| two | 1.50 |  | >= 1.7 | missed |  |" in text
    assert list(pd.read_parquet(tmp_path / "b.parquet")["verdict"]) == ["met", "missed"]
    assert slug_of("Processor X, 2 cores") == "processor-x"


def test_stages_add_up_to_the_time_of_the_run():
    log = (
        "23:59:50 INFO    Using synchronous mode for loading\n23:59:58 INFO    Completed node: train_target\n"
        "00:00:08 INFO    Completed node: generate_adversarials\n00:00:09 INFO    Completed node: collect_records\n"
        "00:00:12 INFO    Completed node: render_report\n"
    )

    assert stage_seconds(log) == {"network": 8, "attacks": 11, "evaluation and report": 3}
    with pytest.raises(RuntimeError, match="nowhere"):
        stage_seconds("")
