from __future__ import annotations

import numpy as np
import pytest
import torch

from adv_detect.algorithms.thresholds import thresholds_at_fpr
from adv_detect.measures.calibration import (
    AS_EXPECTED,
    MORE_ABOVE,
    TWO_GROUPS,
    check_mixture,
    excess_p_value,
    images_for_half,
    images_needed,
    largest_share_p_value,
    order_statistic_interval,
    rate_table,
    widest_gap,
)

FPRS = (0.01, 0.05)


def normal(n, seed, *, shift=0.0, scale=1.0):
    return torch.from_numpy(shift + scale * np.random.default_rng(seed).normal(size=n))


@pytest.mark.parametrize(("fpr", "needed", "for_half"), [(0.01, 100, 1522), (0.05, 20, 292), (0.03, 34, 497)])
def test_images_that_a_rate_needs(fpr, needed, for_half):
    # half a rate to either side: 1.96 sqrt(f (1 - f) / n) = f / 2
    assert images_needed(fpr) == needed
    assert images_for_half(fpr) == for_half == int(np.ceil(1.959964**2 * 4 * (1 - fpr) / fpr))


def test_the_rate_beyond_the_largest_of_n_scores_has_a_closed_form():
    # the largest of n: P(rate > r) = (1 - r)^n
    low, high = order_statistic_interval(0, 99)
    assert low == pytest.approx(1 - 0.975 ** (1 / 99))
    assert high == pytest.approx(1 - 0.025 ** (1 / 99))


def test_the_probability_to_lie_above_a_threshold_by_hand():
    shipped = torch.tensor([1.0, 2.0, 3.0])  # at 5 % none of three may lie above: the threshold is 3
    assert excess_p_value(shipped, torch.tensor([4.0]), 0.05) == pytest.approx(1 / 4)  # largest of four
    assert excess_p_value(shipped, torch.tensor([4.0, 5.0]), 0.05) == pytest.approx(2 / 20)  # the two largest of five
    assert excess_p_value(shipped, torch.tensor([0.0, 1.0]), 0.05) == 1.0


def test_the_widest_gap_by_hand():
    scores = torch.tensor([10.0, 9.9, 9.8, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    # spacings times rank, of the upper six tenths: .1, .2, 3 x 8.8, .4, .5, .6
    gap = widest_gap(scores)
    assert (gap.above, gap.low, gap.high) == (3, 1.0, pytest.approx(9.8))
    assert gap.p_value == pytest.approx(6 * (1 - 26.4 / 28.2) ** 5, rel=1e-3)


def test_a_gap_among_exponential_scores_is_as_frequent_as_its_p_value_says():
    rng = np.random.default_rng(0)
    found = np.array([widest_gap(torch.from_numpy(rng.exponential(size=100))).p_value for _ in range(400)])
    assert (found < 0.05).mean() == pytest.approx(0.05, abs=0.035)  # three standard errors
    assert largest_share_p_value(0.6, 2) == pytest.approx(0.8)  # of two numbers the share is uniform on [1/2, 1]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_or_equal_scores_have_no_gap(count):
    assert widest_gap(torch.ones(20)).p_value == 1.0
    assert widest_gap(torch.arange(float(count))).above == 0


def test_clean_images_of_the_same_kind_raise_no_sign():
    assert check_mixture(normal(300, 0), normal(200, 1), FPRS).verdict == AS_EXPECTED


def test_images_of_another_kind_lie_above_the_thresholds_without_a_gap():
    found = check_mixture(normal(300, 0), normal(200, 1, shift=1.5, scale=1.2), FPRS)
    assert found.verdict == MORE_ABOVE
    assert found.excess < 1e-6


@pytest.mark.parametrize("attacked", [10, 60])
@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_attacked_images_among_clean_ones_are_two_groups(attacked, shift):
    mixed = torch.cat([normal(200 - attacked, 1, shift=shift), normal(attacked, 2, shift=15.0, scale=2.0)])
    found = check_mixture(normal(300, 0), mixed, FPRS)
    assert found.verdict == TWO_GROUPS
    assert found.gap.above == attacked


def test_rates_before_and_after():
    shipped, own = normal(500, 0), normal(400, 1, shift=1.0)
    table = rate_table(shipped, own, FPRS, seed=0).set_index("fpr")
    assert list(table["rate_before"]) == [
        float((own > thresholds_at_fpr(shipped, [fpr])[fpr]).double().mean()) for fpr in FPRS
    ]
    assert table.loc[0.05, "rate_before"] > 0.2
    assert table.loc[0.05, "threshold_after"] == thresholds_at_fpr(own, [0.05])[0.05]
    assert table.loc[0.05, "after_low"] < 0.05 < table.loc[0.05, "after_high"]
    assert table.loc[0.05, "true_low"] < 0.05 < table.loc[0.05, "true_high"]
    assert (table["n"] == 400).all()
    assert (table["n_before"] == 500).all()


def test_the_rate_after_is_that_of_images_left_out():
    # ten images in ten folds: only the largest exceeds the largest of the others
    table = rate_table(torch.arange(10.0), torch.arange(10.0), (0.05,), seed=0)
    assert table.loc[0, "rate_after"] == pytest.approx(0.1)
