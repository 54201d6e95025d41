from __future__ import annotations

import pytest
import torch

from adv_detect.algorithms.similarity_thresholds import carries, pairs_needed, threshold_at_rejection
from adv_detect.errors import DataError


def test_the_threshold_is_the_largest_below_which_no_larger_share_lies():
    same = torch.tensor([0.9, 0.1, 0.5, 0.3, 0.7, 0.8, 0.6, 0.4, 0.2, 1.0])
    # of ten pairs one may lie below at a tenth, two at a fifth and at a quarter
    assert [threshold_at_rejection(same, rate) for rate in (0.1, 0.2, 0.25)] == pytest.approx([0.2, 0.3, 0.3])


@pytest.mark.parametrize(("rate", "least"), [(0.01, 100), (0.05, 20), (0.3, 4)])
def test_a_rate_needs_pairs_of_which_one_may_be_turned_away(rate, least):
    assert pairs_needed(rate) == least
    assert carries(least, rate)
    assert not carries(least - 1, rate)
    with pytest.raises(DataError, match=f"expected at least {least} clean pairs of the same person for a rate of"):
        threshold_at_rejection(torch.linspace(0, 1, least - 1), rate)


def test_there_is_no_threshold_without_pairs():
    with pytest.raises(DataError, match="got 0; give more clean images"):
        threshold_at_rejection(torch.zeros(0), 0.05)
    assert not carries(0, 0.5)
