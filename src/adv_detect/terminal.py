"""Short output of a failed command: the message of an expected error, without the traceback of the frameworks."""

from __future__ import annotations

import os
import sys
from types import TracebackType

from adv_detect.errors import AdvDetectError

TRACEBACK_VARIABLE = "ADV_DETECT_TRACEBACK"
EXPECTED_MODULES = ("kedro.io", "kedro.validation", "kedro.framework")  # datasets, parameters, command line


def install_short_errors() -> None:
    """Let errors that name their cause end a command in a few lines; all others keep their traceback.

    Setting the environment variable ``ADV_DETECT_TRACEBACK`` brings the traceback back.
    """
    previous = sys.excepthook
    if getattr(previous, "shortens", False) or os.environ.get(TRACEBACK_VARIABLE):
        return

    def shorten(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if is_expected(error):
            sys.stderr.write(f"{kind.__name__}: {error}\n(traceback: set {TRACEBACK_VARIABLE}=1)\n")
        else:
            previous(kind, error, trace)

    shorten.shortens = True  # type: ignore[attr-defined]
    sys.excepthook = shorten


def is_expected(error: BaseException) -> bool:
    """Tell an error whose message is enough, ours or Kedro's on datasets and parameters, from any other.

    Args:
        error: What ended the command.

    Returns:
        False where the error, or one it was raised from, is of any other kind.
    """
    if isinstance(error, AdvDetectError):
        return True
    known = type(error).__module__.startswith(EXPECTED_MODULES)
    return known and (error.__cause__ is None or is_expected(error.__cause__))
