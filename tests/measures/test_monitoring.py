from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from adv_detect.measures.monitoring import class_drift, flag_rates, near_copies, score_drift, sketch_bits

NOON = pd.Timestamp("2026-01-01T12:00", tz="UTC")


def log_of(flags, *, hours=0.0, fpr=0.05, n_clean=19, sketch="00" * 16, digest=None, predicted="a"):
    count = len(flags)
    digests = [f"{number:032x}" for number in range(count)] if digest is None else [digest] * count
    return pd.DataFrame(
        {
            "time": NOON + pd.Timedelta(hours=hours) + pd.to_timedelta(np.arange(count), unit="s"),
            "is_adversarial": flags, "fpr": fpr, "n_clean": n_clean, "predicted_class": predicted,
            "sketch": sketch, "digest": digests,
        }
    )  # fmt: skip


def test_flag_rates_by_hand():
    # above the largest of 19: the rate of a clean image is 1 / 20, and of both of two 2 / (20 x 21)
    table = flag_rates(pd.concat([log_of([True, True]), log_of([False], hours=24)]), hours=24)
    first, second = table.to_dict("records")
    assert (first["n"], first["flagged"], first["rate"], first["expected"]) == (2, 2, 1.0, pytest.approx(1 / 20))
    assert first["p_value"] == pytest.approx(2 / (20 * 21))
    assert (second["flagged"], second["p_value"]) == (0, pytest.approx(1.0))
    assert first["start"] == pd.Timestamp("2026-01-01", tz="UTC")
    assert (first["low"], first["high"]) == (0.0, 0.5)  # one of two with probability .095, both with .005


def test_rates_of_verdicts_are_kept_apart():
    table = flag_rates(pd.concat([log_of([True]), log_of([False, False], fpr=0.2)]), hours=1)
    assert list(table["fpr"]) == [0.05, 0.2]
    assert list(table["n"]) == [1, 2]


def test_score_drift_is_the_largest_distance_of_the_distribution_functions():
    found = score_drift(np.array([0.0, 1.0, 2.0, 3.0]), np.array([2.5, 4.0]))
    assert (found.statistic, found.n, found.n_reference) == (pytest.approx(0.75), 4, 2)
    same = np.random.default_rng(0).normal(size=300)
    assert score_drift(same[:150], same[150:]).p_value > 0.01
    assert score_drift(same[:150], same[150:] + 2).p_value < 1e-6


def test_class_drift_by_hand():
    # 30 and 10 against 20 and 20: expected 25 and 15 in both rows, with Yates' correction
    found = class_drift(pd.Series(["a"] * 30 + ["b"] * 10), pd.Series(["a"] * 20 + ["b"] * 20))
    expected = sum((5 - 0.5) ** 2 / one for one in (25, 15, 25, 15))
    assert found.statistic == pytest.approx(expected)
    assert found.p_value == pytest.approx(chi2.sf(expected, 1))
    assert class_drift(pd.Series(["a"]), pd.Series(["a", "a"])).p_value == 1.0


def test_near_copies_are_grouped_by_the_bits_that_differ():
    near = pd.concat([log_of([True], sketch="00" * 16), log_of([False], sketch="03" + "00" * 15, predicted="b")])
    far = log_of([False] * 3, sketch="ff" * 16, digest="d" * 32, hours=1)
    single = log_of([False], sketch="0f" * 16)
    table = near_copies(pd.concat([near, far, single]), distance=2 / 128)
    assert list(table["images"]) == [3, 2]
    assert list(table["different"]) == [1, 1]  # both near ones have the first digest of their log
    assert list(table["classes"]) == [1, 2]
    assert list(table["flagged"]) == [0.0, 0.5]
    assert list(near_copies(pd.concat([near, far]), distance=1 / 128)["images"]) == [3]


def test_no_pairs_no_groups():
    assert near_copies(log_of([True]), distance=0.1).empty
    assert near_copies(pd.concat([log_of([True]), log_of([True], sketch="ff" * 16)]), distance=0.1).empty


def test_bits_of_a_sketch():
    assert sketch_bits("81").tolist() == [True, *[False] * 6, True]
