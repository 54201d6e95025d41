"""Says where the report of the last run lies: ``python -m adv_detect.reporting.where [--env=<name>] [file]``."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from adv_detect.environments import REPORT, check_environment, is_default, results_folder
from adv_detect.errors import ConfigurationError, DataError

CONF = Path("conf")
PAGES = {"report": "", "scoring": " --pipeline=scoring", "monitoring": " --pipeline=monitoring"}
"""Pages by name, and what makes them beside the environment."""


def main(arguments: Sequence[str]) -> int:
    """Write the report's address.

    Args:
        arguments: ``--env`` of the run, as for ``kedro run``; the file, when it is not the usual one.

    Returns:
        0, or 1 where there is no report.
    """
    parser = ArgumentParser(prog="python -m adv_detect.reporting.where")
    parser.add_argument("-e", "--env", default=os.environ.get("KEDRO_ENV"), help="environment of the run")
    parser.add_argument("file", nargs="?", type=Path, help="another report")
    given = parser.parse_args(arguments)
    try:
        sys.stdout.write(say_where(find_page(given.env, file=given.file)))
    except (ConfigurationError, DataError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


def find_page(env: str | None, page: str = "report", *, file: Path | None = None) -> Path:
    """Find a page of the last run in the project that is the working directory.

    Args:
        env: Name of the environment; None for the default one.
        page: One of ``PAGES``.
        file: The file, when it is not the usual one.

    Returns:
        The page.

    Raises:
        ConfigurationError: There is no such environment.
        DataError: There is no such page.
    """
    check_environment(env, CONF)
    place = file or Path(results_folder(env), REPORT.with_name(f"{page}.html"))
    if not place.is_file():
        command = "kedro run" if is_default(env) else f"kedro run --env={env}"
        raise DataError(f"no {page} at {place}: run `{command}{PAGES[page]}` in the project's folder first")
    return place


def say_where(page: Path) -> str:
    """Write the path and the address of a page, a line each."""
    return f"{page.stem}: {page}\nopen in a browser: {page.resolve().as_uri()}\n"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
