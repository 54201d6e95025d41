"""Expected errors end a command in a few lines; surprises keep their traceback."""

from __future__ import annotations

import sys

import pytest
from kedro.io import DatasetError

from adv_detect.errors import ConfigurationError
from adv_detect.terminal import TRACEBACK_VARIABLE, install_short_errors, is_expected


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigurationError("epsilon: expected more"), True),
        (caused(ConfigurationError("epsilon: expected more"), ZeroDivisionError()), True),
        (DatasetError("there is no network"), True),
        (caused(DatasetError("failed while saving"), ConfigurationError("accuracy")), True),
        (caused(DatasetError("failed while saving"), ZeroDivisionError()), False),
        (ZeroDivisionError(), False),
    ],
)
def test_which_errors_speak_for_themselves(error, expected):
    assert is_expected(error) is expected


@pytest.fixture
def shown(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: seen.append(error))
    return seen


def test_an_expected_error_is_its_message(shown, capsys, monkeypatch):
    monkeypatch.delenv(TRACEBACK_VARIABLE, raising=False)
    install_short_errors()
    install_short_errors()

    sys.excepthook(ConfigurationError, ConfigurationError("epsilon: expected more"), None)

    lines = capsys.readouterr().err.splitlines()
    assert lines == ["ConfigurationError: epsilon: expected more", f"(traceback: set {TRACEBACK_VARIABLE}=1)"]
    assert shown == []


def test_a_surprise_keeps_its_traceback(shown, monkeypatch):
    monkeypatch.delenv(TRACEBACK_VARIABLE, raising=False)
    install_short_errors()
    surprise = ZeroDivisionError()

    sys.excepthook(ZeroDivisionError, surprise, None)

    assert shown == [surprise]


def test_the_variable_brings_the_traceback_back(shown, monkeypatch):
    monkeypatch.setenv(TRACEBACK_VARIABLE, "1")
    install_short_errors()
    error = ConfigurationError("epsilon")

    sys.excepthook(ConfigurationError, error, None)

    assert shown == [error]
