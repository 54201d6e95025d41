"""The files of a new project, and writing that never replaces one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from adv_detect.command_line.running import is_project
from adv_detect.errors import ConfigurationError, DataError

HOME = Path(__file__).resolve().parents[1]
BROUGHT = "configuration"
"""Folder of the package in which a wheel holds the configuration."""
LOCAL = "local"
SETTINGS = """\
# A project of adv-detect: `kedro run` and `adv-detect` work in this folder.
[tool.kedro]
package_name = "adv_detect"
project_name = "adv-detect"
kedro_init_version = "{version}"
source_dir = "src"
"""
IGNORED = """\
__pycache__/
.viz/
conf/local/**
!conf/local/.gitkeep
data/**
mlflow.db*
mlruns/
mlartifacts/
"""
KEPT_FOLDERS = ("conf/local/.gitkeep", "data/01_raw/.gitkeep", "src/.gitkeep")
"""``src`` is searched for modules of one's own: networks, attacks, detectors."""


class Written(NamedTuple):
    """Files of a project.

    Attributes:
        made: Those that were written.
        kept: Those that were there, and stay as they are.
    """

    made: list[str]
    kept: list[str]


def project_files() -> dict[str, str]:
    """Give the files of a new project.

    Returns:
        Content by path.

    Raises:
        DataError: The package was installed without its configuration.
    """
    from kedro import __version__

    conf = configuration_folder()
    found = {
        f"conf/{path.relative_to(conf).as_posix()}": path.read_text(encoding="utf-8")
        for path in sorted(conf.rglob("*.yml"))
        if path.relative_to(conf).parts[0] != LOCAL
    }
    made = {"pyproject.toml": SETTINGS.format(version=__version__), ".gitignore": IGNORED}
    return found | made | {".telemetry": "consent: false\n"} | dict.fromkeys(KEPT_FOLDERS, "")


def configuration_folder() -> Path:
    """Find the configuration that came with the package: in a wheel within it, in a checkout beside ``src``.

    Raises:
        DataError: There is none.
    """
    for folder in (HOME / BROUGHT, HOME.parents[1] / "conf"):
        if (folder / "base").is_dir():
            return folder
    raise DataError(f"expected the configuration in {HOME / BROUGHT}, got none; install adv-detect from a wheel again")


def check_place(folder: Path) -> None:
    """Refuse a folder that is a project of something else.

    Args:
        folder: Where a project is wanted.

    Raises:
        ConfigurationError: It holds a ``pyproject.toml`` of another project.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder}: expected a folder, or a name for a new one, got a file")
    if (folder / "pyproject.toml").exists() and not is_project(folder):
        raise ConfigurationError(
            f"{folder}: expected an empty folder or a project of adv-detect, got the pyproject.toml of something else; "
            "take another folder"
        )


def write_new(folder: Path, files: Mapping[str, str]) -> Written:
    """Write files that are not there yet.

    Args:
        folder: Where to.
        files: Content by path relative to it.

    Returns:
        What was written and what stays as it was.
    """
    made, kept = [], []
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with place.open("x", encoding="utf-8") as file:
                file.write(content)
            made.append(name)
        except FileExistsError:
            kept.append(name)
    return Written(made, kept)
