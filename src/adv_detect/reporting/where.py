"""Says where the report of the last run lies: ``python -m adv_detect.reporting.where [--env=<name>] [file]``."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from adv_detect.environments import REPORT, check_environment, is_default, results_folder
from adv_detect.errors import ConfigurationError

CONF = Path("conf")


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
        check_environment(given.env, CONF)
    except ConfigurationError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    report = given.file or Path(results_folder(given.env), REPORT)
    if not report.is_file():
        command = "kedro run" if is_default(given.env) else f"kedro run --env={given.env}"
        sys.stderr.write(f"no report at {report}: run `{command}` in the project's folder first\n")
        return 1
    sys.stdout.write(f"report: {report}\nopen in a browser: {report.resolve().as_uri()}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
