"""The site of the documentation: it builds from files alone, with all links whole, and its pages fetch nothing."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest

FETCHED = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//[^\"'\s>]+")
PACKAGES = ("material", "mkdocs", "mkdocstrings")

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES),
    reason="needs the extra docs: pip install -e .[docs]",
)


@pytest.fixture(scope="module")
def site(project, tmp_path_factory):
    """Built as ``make docs`` does, in a process that refuses connections."""
    folder = tmp_path_factory.mktemp("site")
    refuse = "import socket, sys\ndef no(*_): raise OSError('no network here')\nsocket.socket.connect = no\n"
    built = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{refuse}from mkdocs.__main__ import cli\ncli()",
            "build",
            "--strict",
            "-d",
            str(folder),
        ],
        cwd=project,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    return folder


def test_every_page_is_there(project, site):
    pages = {path.with_suffix("").name for path in (project / "docs").glob("*.md")}

    assert {path.with_suffix("").name for path in site.glob("*.html")} >= {"index", "changelog", *pages}


def test_pages_fetch_nothing_from_elsewhere(site):
    fetched = {
        (path.name, found)
        for path in site.rglob("*.html")
        for found in FETCHED.findall(path.read_text(encoding="utf-8"))
    }

    assert not fetched


def test_the_python_interface_is_described(site):
    text = (site / "api.html").read_text(encoding="utf-8")

    for name in ("load", "Gate.score", "fit", "Detector.fit", "ImageFolderDataset"):
        assert re.search(rf'id="adv_detect\.[\w.]*{re.escape(name)}"', text), name
