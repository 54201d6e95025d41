"""Intervals of shares."""

from __future__ import annotations

from functools import lru_cache

from adv_detect.errors import DataError


@lru_cache(maxsize=4096)  # the test that SciPy makes on the way takes 5 ms
def wilson_interval(successes: int, n: int, *, confidence_level: float = 0.95) -> tuple[float, float]:
    """Interval of a share (Wilson 1927), sound near 0 and 1.

    Args:
        successes: How often it happened.
        n: Out of how many.
        confidence_level: Coverage, in (0, 1).

    Returns:
        Lower and upper bound, in [0, 1].

    Raises:
        DataError: ``n`` is not positive or ``successes`` lies outside ``[0, n]``.
    """
    if n < 1 or not 0 <= successes <= n:
        raise DataError(f"expected 0 <= successes <= n with n >= 1, got {successes} of {n}")
    from scipy.stats import binomtest  # takes a moment

    interval = binomtest(successes, n).proportion_ci(confidence_level, method="wilson")
    return float(interval.low), float(interval.high)
