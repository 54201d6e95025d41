"""Pages of the site that are files of the project: the first page is README.md, the changes are CHANGELOG.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(\]\(|src=\")(?:docs/)?([^)#\"\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, with links that start in ``docs``."""
    for name, page in PAGES.items():
        text = (PROJECT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=LINK.sub(_moved, text)))
    return files


def _moved(link: re.Match[str]) -> str:
    return link[1] + PAGES.get(link[2], link[2])
