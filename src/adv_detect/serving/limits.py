"""Limits of a server, and the error that refuses a request."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from adv_detect.errors import AdvDetectError, ConfigurationError
from adv_detect.params import ServingParams

MAX_REQUESTS = 64
MOST_PREDICTIONS = 4
"""Predictions at once that more cores do not raise: a forward pass uses several cores by itself."""
TIMEOUT_SECONDS = 60.0
LARGE_BODIES = 4
"""Bodies of the largest size that are held at once."""
VARIABLES = {
    "max_images": "ADV_DETECT_MAX_IMAGES",
    "max_bytes": "ADV_DETECT_MAX_BYTES",
    "max_requests": "ADV_DETECT_MAX_REQUESTS",
    "predictions": "ADV_DETECT_PREDICTIONS",
    "timeout": "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT",
}
"""Environment variables of the server; the last is what ``mlflow models serve --timeout`` sets."""


class RequestError(AdvDetectError, ValueError):
    """A request is not answered with scores.

    Attributes:
        status: HTTP status of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """Limits of a server's requests.

    Attributes:
        max_images: Images a request.
        max_bytes: Bytes of the body of a request.
        max_requests: Requests under way at once: on their way in, waiting or scored.
        predictions: Requests scored at once; the others wait.
        timeout: Seconds from the first byte of a request to its answer.
    """

    max_images: int = ServingParams().max_images
    max_bytes: int = ServingParams().max_bytes
    max_requests: int = MAX_REQUESTS
    predictions: int = 1
    timeout: float = TIMEOUT_SECONDS

    @property
    def max_held(self) -> int:
        """Bytes of all large bodies that are held at once."""
        return LARGE_BODIES * self.max_bytes

    @property
    def small(self) -> int:
        """Bytes up to which a body is not counted, so that large ones do not keep small ones out."""
        return self.max_held // self.max_requests

    @classmethod
    def from_environment(cls, configured: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Limits:
        """Take the limits that the environment sets, then those of the model, then the defaults.

        Args:
            configured: Facts on the model, limits by name among them.
            environment: Variables of the process.

        Returns:
            The limits.

        Raises:
            ConfigurationError: A variable is no positive number.
        """
        chosen = {"predictions": min(MOST_PREDICTIONS, available_cores())}
        chosen |= {one.name: configured[one.name] for one in fields(cls) if one.name in configured}
        given = {name: environment[key] for name, key in VARIABLES.items() if environment.get(key)}
        return cls(**{**chosen, **{name: _positive(VARIABLES[name], value) for name, value in given.items()}})


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _positive(variable: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ConfigurationError(f"{variable}: expected a whole number of at least 1, got {value!r}; set or unset it")
    return int(value)
