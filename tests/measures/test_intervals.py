from __future__ import annotations

import pytest

from adv_detect.errors import DataError
from adv_detect.measures.intervals import wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "confidence_level", "z"),
    [(7, 10, 0.95, 1.959963984540054), (499, 500, 0.95, 1.959963984540054), (3, 4, 0.9, 1.6448536269514722)],
)
def test_bounds_solve_the_equation_of_wilson(successes, n, confidence_level, z):
    share = successes / n
    for bound in wilson_interval(successes, n, confidence_level=confidence_level):
        assert (share - bound) ** 2 == pytest.approx(z**2 * bound * (1 - bound) / n)


def test_nothing_and_everything_by_hand():
    z2 = 1.959963984540054**2
    assert wilson_interval(0, 10) == pytest.approx((0.0, z2 / (10 + z2)))
    assert wilson_interval(10, 10) == pytest.approx((10 / (10 + z2), 1.0))


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_it_wants_a_share(successes, n):
    with pytest.raises(DataError, match="expected 0 <= successes <= n"):
        wilson_interval(successes, n)
