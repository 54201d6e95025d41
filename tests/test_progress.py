"""A bar on a terminal, a line every tenth in a log file."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from adv_detect.progress import show_progress, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="adv_detect.progress")
    return lambda: [record.getMessage().split(",")[0] for record in caplog.records]


def test_without_a_terminal_each_tenth_is_a_line(lines, capsys):
    passed = list(track(range(250), "adversarials", unit="shards"))

    assert passed == list(range(250))
    assert lines() == [f"adversarials: {done} of 250 shards" for done in range(25, 251, 25)]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("total", "done"), [(1, [1]), (3, [1, 2, 3]), (11, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11])])
def test_few_units_make_at_most_a_line_each(lines, total, done):
    list(track(range(total), "features", unit="shards"))

    assert lines() == [f"features: {one} of {total} shards" for one in done]


def test_what_was_there_before_counts_as_done_but_takes_no_time(lines, caplog, monkeypatch):
    clock = iter([100.0, 130.0, 160.0])
    monkeypatch.setattr("adv_detect.progress.perf_counter", lambda: next(clock))

    with show_progress("features", 20, unit="shards", done=15) as advance:
        for _ in range(3):
            advance()

    # 16 and 18 of 20 are the eighth and ninth tenth; 30 s for one shard leaves 4 x 30, 60 s for three leaves 2 x 20
    assert lines() == ["features: 16 of 20 shards", "features: 18 of 20 shards"]
    assert [record.getMessage().split(", ", 1)[1] for record in caplog.records] == [
        "30 s gone, about 120 s left",
        "60 s gone, about 40 s left",
    ]


def test_a_terminal_has_a_bar_and_no_lines(caplog, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    caplog.set_level(logging.INFO, logger="adv_detect.progress")

    with show_progress("features (1 kept)", 3, unit="shards", done=1) as advance:
        advance()
        advance()

    assert "features (1 kept)" in terminal.getvalue()
    assert "1/3" in terminal.getvalue()
    assert caplog.records == []


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_is_shown_where_it_is_not_wanted_or_nothing_is_left(caplog, monkeypatch, terminal):
    error = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", error)
    caplog.set_level(logging.INFO, logger="adv_detect.progress")

    list(track(range(20), "features", unit="shards", shown=False))
    with show_progress("features", 5, unit="shards", done=5):
        pass

    assert error.getvalue() == ""
    assert caplog.records == []
