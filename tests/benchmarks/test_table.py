"""The document and the file of results."""

from __future__ import annotations

import pandas as pd
from benchmarks.measure import Row
from benchmarks.table import frame_of, markdown, merge, slug_of, write_parquet, write_section

BIM = Row("attacks", "bim: foolbox / ours", (2.0, 3.0, 2.5), "n = 4", 2.0, outcome={"success": 1.0})
RAY = Row("ray", "two workers", (1.5,), "8 shards", 1.7)


def framed(*rows, versions="torch 1", quick=False):
    return frame_of(rows, machine="Processor X, 2 cores", versions=versions, quick=quick)


def test_the_table_holds_every_row_under_its_group():
    text = markdown(framed(BIM, RAY, Row("ray", "none", (), "ray is not installed", 1.7)))

    assert "| bim: foolbox / ours | 2.50 | 2.00 - 3.00 | >= 2 | met | n = 4 |" in text
    assert "| two workers | 1.50 |  | >= 1.7 | missed | 8 shards |" in text
    assert "| none |  |  | >= 1.7 | not measured | ray is not installed |" in text
    assert text.index("## Processor X") < text.index("### Attacks") < text.index("### Ray")
    assert "Processor X, 2 cores. torch 1. " in text
    assert "Quick run" not in text
    assert "Quick run" in markdown(framed(BIM, quick=True))


def test_units_and_upper_limits_are_shown():
    text = markdown(framed(Row("main job", "whole", (123.4,), "", 300.0, at_most=True, unit="s")))

    assert "| whole | 123 s |  | <= 300 | met |  |" in text


def test_groups_not_measured_this_time_stay(tmp_path):
    path = tmp_path / "results" / "x.parquet"
    write_parquet(path, merge(path, framed(BIM, RAY)))
    newer = framed(Row("attacks", "pgd: foolbox / ours", (4.0,), "", 2.0), versions="torch 2")

    merged = merge(path, newer)

    assert list(merged["comparison"]) == ["pgd: foolbox / ours", "two workers"]
    write_parquet(path, merged)
    assert list(pd.read_parquet(path)["versions"]) == ["torch 2", "torch 1"]
    assert "torch 2" in markdown(merged)


def test_a_section_is_replaced_and_words_around_it_stay(tmp_path):
    path = tmp_path / "docs" / "benchmarks.md"
    write_section(path, "one", "first")
    path.write_text(path.read_text() + "\nWhy it is so.\n")
    write_section(path, "two", "other machine")

    write_section(path, "one", "second")

    text = path.read_text()
    assert text.startswith("# Benchmarks")
    assert "first" not in text
    assert text.index("second") < text.index("Why it is so.") < text.index("other machine")


def test_a_machine_is_named_after_its_processor():
    assert slug_of("Processor(R) X @ 2 GHz, 2 cores") == "processor-r-x-2-ghz"
