from __future__ import annotations

import pathlib

import pytest

from adv_detect.dotted import import_dotted
from adv_detect.errors import ConfigurationError


def test_an_attribute_of_a_module():
    assert import_dotted("thing", "pathlib.Path", "a class") is pathlib.Path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no.such.thing", r"^thing: cannot import module 'no\.such' of 'no\.such\.thing' \(.*\); expected a class$"),
        ("thing", r"^thing: cannot import module '' of 'thing'"),
        (".relative", r"^thing: cannot import module ''"),
        ("pathlib.Pth", r"^thing: 'pathlib' has no 'Pth': expected one of \[.*Path.*got 'pathlib\.Pth'"),
    ],
)
def test_paths_that_name_nothing_are_refused(path, message):
    with pytest.raises(ConfigurationError, match=message):
        import_dotted("thing", path, "a class")
