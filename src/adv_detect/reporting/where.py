"""Says where the report of the last run lies: ``python -m adv_detect.reporting.where [file]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

REPORT = Path("data", "08_reporting", "report.html")


def main(arguments: Sequence[str]) -> int:
    """Write the report's address.

    Args:
        arguments: At most one: the file, when it is not the usual one.

    Returns:
        0, or 1 where there is no report.
    """
    report = Path(arguments[0]) if arguments else REPORT
    if not report.is_file():
        sys.stderr.write(f"no report at {report}: run `kedro run` in the project's folder first\n")
        return 1
    sys.stdout.write(f"report: {report}\nopen in a browser: {report.resolve().as_uri()}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
