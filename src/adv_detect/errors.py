"""Errors that name what was expected, what came and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches


class AdvDetectError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigurationError(AdvDetectError, ValueError):
    """A configured value is not usable; the message names key, value and valid choices."""


class DataError(AdvDetectError, ValueError):
    """Data on disk is missing, corrupt or of another form than expected."""


class DamagedFileError(DataError):
    """A file is not what was written: its digest, length or form says so.

    Args:
        path: The file.
        reason: What gives it away.
        remedy: What makes it again.
    """

    def __init__(self, path: str, reason: str, remedy: str = "delete it and run the pipeline that makes it again"):
        super().__init__(path, reason, remedy)
        self.path, self.reason, self.remedy = path, reason, remedy

    def __str__(self) -> str:
        """Say which file, why, and what to do."""
        return f"{self.path} is damaged ({self.reason}); {self.remedy}"

    def remade_by(self, remedy: str) -> DamagedFileError:
        """Return the same error with another remedy."""
        return DamagedFileError(self.path, self.reason, remedy)


class CheckpointError(AdvDetectError, ValueError):
    """A weight file does not fit the network it is loaded into."""


class ShardError(AdvDetectError, RuntimeError):
    """A shard could not be made, or a sharded data set is incomplete."""


class MissingShardError(ShardError, KeyError):
    """A store has no shard of this key."""

    __str__ = Exception.__str__  # that of KeyError shows the message in quotes


class AttackError(AdvDetectError, RuntimeError):
    """An attack returned something that cannot be an adversarial example."""


class BusyError(AdvDetectError, RuntimeError):
    """Another run writes where this one would."""


class WorkerError(AdvDetectError, RuntimeError):
    """A worker process ended before its work was done."""


class TrackingError(AdvDetectError, RuntimeError):
    """MLflow cannot be reached, or keeps results where this project cannot use them."""


class NotFittedError(AdvDetectError, RuntimeError):
    """Something was asked of a detector before it was trained."""


def refuse_non_finite(key: str, value: object) -> None:
    """Refuse NaN and infinity in free-form arguments, however deep they lie.

    Args:
        key: Configuration key of the value, for the message.
        value: A number, a list or mapping of values, or anything else.

    Raises:
        ConfigurationError: A number is not finite.
    """
    if isinstance(value, Mapping):
        for name, one in value.items():
            refuse_non_finite(f"{key}.{name}", one)
    elif isinstance(value, list | tuple):
        for position, one in enumerate(value):
            refuse_non_finite(f"{key}[{position}]", one)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigurationError(f"{key}: expected a finite number, got {value}; write the number that is meant")


def unknown_choice(key: str, value: object, choices: Iterable[str]) -> ConfigurationError:
    """Build the error for a name that is in no registry.

    Args:
        key: Configuration key or argument that holds the name.
        value: What came.
        choices: Every valid name.

    Returns:
        An error to raise, whose message lists the valid choices, and the nearest one.
    """
    valid = sorted(choices)
    close = get_close_matches(str(value), valid, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return ConfigurationError(f"{key}: expected one of [{', '.join(valid)}], got {value!r}{hint}")
