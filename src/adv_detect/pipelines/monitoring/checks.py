"""Checks of monitoring before a run."""

from __future__ import annotations

from pathlib import Path

from adv_detect.errors import ConfigurationError, DataError
from adv_detect.params import MonitoringParams
from adv_detect.validation.run import Run

PATTERN = "scores-*.parquet"


def check(run: Run) -> None:
    """Check that there is a log.

    Args:
        run: What is going to run.

    Raises:
        ConfigurationError: No folder is named.
        DataError: It holds no file of a log.
    """
    params = run.read_block(MonitoringParams)
    if params is not None:
        log_files(params)


def log_files(params: MonitoringParams) -> list[Path]:
    """List the files of the log.

    Args:
        params: The folder.

    Returns:
        The files, the oldest first.

    Raises:
        ConfigurationError: No folder is named.
        DataError: It holds no file of a log.
    """
    if params.log is None:
        raise ConfigurationError(
            "monitoring.log: expected the folder of a log, got none; name it with --params=monitoring.log=FOLDER, and "
            "let the server write one with ADV_DETECT_LOG=FOLDER"
        )
    found = sorted(Path(params.log).glob(PATTERN))
    if not found:
        raise DataError(f"monitoring.log: expected files {PATTERN} in {params.log!r}, got none; check the folder")
    return found
