from __future__ import annotations

import numpy as np
import pytest
import torch

from adv_detect.algorithms.thresholds import thresholds_at_fpr
from adv_detect.errors import ConfigurationError, DataError


def test_by_hand():
    scores = torch.arange(1.0, 11.0)
    assert thresholds_at_fpr(scores, (0.0, 0.1, 0.25, 0.3)) == {0.0: 10.0, 0.1: 9.0, 0.25: 8.0, 0.3: 7.0}


def test_ties_are_kept_below_the_rate():
    scores = torch.tensor([1.0, 5.0, 5.0, 5.0, 0.0])
    assert thresholds_at_fpr(scores, [0.4, 0.6]) == {0.4: 5.0, 0.6: 1.0}


@pytest.mark.parametrize("count", [1, 7, 100, 997])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_smaller_threshold_keeps_the_rate(count, dtype):
    draws = np.random.default_rng(count)
    scores = torch.as_tensor(draws.normal(size=count).round(1) * 30, dtype=dtype)
    for fpr, threshold in thresholds_at_fpr(scores, (0.0, 0.01, 0.03, 0.07, 0.1, 0.29, 0.999)).items():
        assert (scores > threshold).double().mean() <= fpr
        smaller = np.nextafter(threshold, -np.inf)
        assert np.mean(scores.double().numpy() > smaller) > fpr


@pytest.mark.parametrize("percent", range(100))
def test_rates_that_floats_round_are_used_up(percent):
    scores = torch.arange(100.0)
    threshold = thresholds_at_fpr(scores, [percent / 100])[percent / 100]
    assert (scores > threshold).sum() == percent


def test_order_of_the_scores_does_not_matter():
    scores = torch.randn(200, generator=torch.Generator().manual_seed(0))
    assert thresholds_at_fpr(scores, (0.05,)) == thresholds_at_fpr(scores.flip(0), (0.05,))


def test_too_few_scores_give_the_maximum():
    scores = torch.tensor([3.0, 50.0, 49.99])
    assert thresholds_at_fpr(scores, (0.01, 0.1)) == {0.01: 50.0, 0.1: 50.0}


def test_scores_far_above_17_stay_apart():
    scores = torch.tensor([60.0, 40.0, 50.0, 30.0])
    assert thresholds_at_fpr(scores, (0.25, 0.5)) == {0.25: 50.0, 0.5: 40.0}


def test_nan_is_refused():
    with pytest.raises(DataError, match="got 1 NaN among 3"):
        thresholds_at_fpr(torch.tensor([1.0, float("nan"), 2.0]), (0.1,))


@pytest.mark.parametrize("scores", [torch.zeros(0), torch.zeros(3, 1)])
def test_wrong_shapes_are_refused(scores):
    with pytest.raises(DataError, match=r"shape \(N,\) with N >= 1, got"):
        thresholds_at_fpr(scores, (0.1,))


@pytest.mark.parametrize("fpr", [-0.1, 1.0, 5, float("nan")])
def test_rates_outside_the_unit_interval_are_refused(fpr):
    with pytest.raises(ConfigurationError, match=r"fprs: expected rates in \[0, 1\), got"):
        thresholds_at_fpr(torch.zeros(3), (fpr,))
