"""Intervals of shares."""

from __future__ import annotations

from statistics import NormalDist

from adv_detect.errors import DataError


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
    z2 = NormalDist().inv_cdf(0.5 + confidence_level / 2) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * (share * (1 - share) / n + z2 / (4 * n * n))) ** 0.5 / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)
