from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import MonteCarloMethod, binomtest, chi2_contingency

from adv_detect.errors import DataError
from adv_detect.measures.class_false_alarms import class_false_alarms, spread_p_value
from adv_detect.measures.detector_keys import DETECTOR_COLUMNS, SUMMARY_FIGURES


def summary() -> pd.DataFrame:
    facts = dict.fromkeys([*DETECTOR_COLUMNS, *SUMMARY_FIGURES], "")
    return pd.DataFrame([facts | {"detector": "a", "configuration": "a", "trained_on": "all", "seed": 0}])


def scores(**columns: list) -> pd.DataFrame:
    """Four clean test images of two classes by two detectors; attacked and validation images that must not count."""
    part = pd.DataFrame(
        {
            "attack": ["natural"] * 4 + ["bim", "natural"],
            "split": ["test"] * 5 + ["validation"],
            "label": [0, 0, 0, 7, 7, 0],
            "verdict_fpr_05": [True, False, False, False, True, True],
            "verdict_fpr_00_5": [False] * 6,
        }
        | columns
    )
    return pd.concat([part.assign(detector="a"), part.assign(detector="margin", verdict_fpr_05=False)])


def test_rates_and_intervals_by_hand():
    table = class_false_alarms(scores(), summary(), confidence_level=0.9, seed=0)

    own = table[table["detector"] == "a"]
    assert own["class"].tolist() == [0, 7]
    assert own["n"].tolist() == [3, 1]
    assert own["fpr_05"].tolist() == pytest.approx([1 / 3, 0])
    interval = binomtest(1, 3).proportion_ci(0.9, method="wilson")
    assert tuple(own.loc[0, ["fpr_05_low", "fpr_05_high"]]) == pytest.approx((interval.low, interval.high))
    assert own["fpr_00_5"].tolist() == [0, 0]
    assert table["detector"].tolist() == ["a", "a", "margin", "margin"]
    assert table.loc[table["detector"] == "margin", "p_05"].isna().all()  # it flags nothing


def test_a_detector_without_clean_scores_is_refused():
    with pytest.raises(DataError, match="clean test images scored by 'a'"):
        class_false_alarms(scores(split=["validation"] * 6), summary(), confidence_level=0.95, seed=0)


@pytest.mark.parametrize("extra", [0, 6])
def test_the_p_value_is_that_of_an_independent_simulation(extra):
    labels = np.repeat([3, 4, 9], [30, 40, 50])
    flagged = np.zeros(120, dtype=bool)
    flagged[[0, 1, 40, 41, 80, 90]] = True
    flagged[30 : 30 + extra] = True

    found = spread_p_value(labels, flagged, seed=1)

    table = [[flagged[labels == one].sum(), (~flagged[labels == one]).sum()] for one in (3, 4, 9)]
    method = MonteCarloMethod(n_resamples=9999, rng=2)
    assert found == pytest.approx(chi2_contingency(table, correction=False, method=method).pvalue, abs=0.04)


def test_alarms_of_one_class_alone_are_beyond_chance():
    labels = np.repeat(np.arange(10), 30)

    assert spread_p_value(labels, labels == 4, seed=0) == pytest.approx(1 / 1000)


@pytest.mark.parametrize("flags", [np.zeros(6, dtype=bool), np.ones(6, dtype=bool)])
def test_where_classes_cannot_differ_there_is_no_p_value(flags):
    assert np.isnan(spread_p_value(np.array([0, 0, 1, 1, 2, 2]), flags, seed=0))
    assert np.isnan(spread_p_value(np.zeros(2, dtype=int), np.array([True, False]), seed=0))
