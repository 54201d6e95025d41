from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from adv_detect.measures.benign_changes import (
    benign_metrics,
    benign_table,
    change_rows,
    first_seed_detectors,
    worst_change,
)
from adv_detect.params import BenignChangeParams

CLASSES = {
    "label": np.array([0, 0, 1, 1, 1]),
    "predicted": np.array([0, 1, 1, 1, 0]),
    "before": np.array([0, 0, 1, 0, 0]),
}
SCORES = np.array([3.0, 9.0, 2.0, 9.0, 1.0], dtype=np.float32)
CHANGES = {"blur": BenignChangeParams(kind="blur"), "gamma": BenignChangeParams(kind="gamma", train=False)}


def rows_of(change: str = "blur", shift: float = 0.0, **classes: np.ndarray) -> list[dict]:
    limits = {"a": {"05": 2.5, "01": 5.0}, "margin": {"05": 0.0, "01": 0.5}}
    scores = {"a": SCORES + shift, "margin": SCORES}
    return change_rows(change, CLASSES | classes, scores, limits, confidence_level=0.95)


def described() -> pd.DataFrame:
    return pd.DataFrame(
        {"detector": ["margin", "a", "unmeasured"], "configuration": ["margin", "a", "b"], "validation_macro_auc": 0.5}
    )


def test_false_alarms_by_hand():
    row, margin = rows_of()

    assert (row["n_images"], row["n"]) == (5, 3)  # rows 0, 2 and 4 keep their class
    assert row["accuracy"] == pytest.approx(3 / 5)
    assert row["fpr_05"] == pytest.approx(1 / 3)  # of 3, 2 and 1 only the 3 is above 2.5
    assert row["fpr_01"] == 0
    assert margin["fpr_05"] == 1
    interval = binomtest(1, 3).proportion_ci(method="wilson")
    assert (row["fpr_05_low"], row["fpr_05_high"]) == pytest.approx((interval.low, interval.high))


def test_where_every_class_changes_there_is_no_rate():
    row = rows_of(before=np.array([7, 7, 7, 7, 7]))[0]

    assert row["n"] == 0
    assert np.isnan([row["fpr_05"], row["fpr_05_low"], row["fpr_05_high"]]).all()


def table() -> pd.DataFrame:
    rows = [*rows_of("unchanged"), *rows_of("blur"), *rows_of("gamma", shift=1.0)]
    return benign_table(rows, described(), CHANGES)


def test_the_table_says_what_a_change_is():
    found = table()

    assert found["detector"].tolist() == ["margin"] * 3 + ["a"] * 3
    assert found["change"].tolist() == ["unchanged", "blur", "gamma"] * 2
    assert found["kind_of_change"].tolist()[:3] == ["", "blur", "gamma"]
    assert found["train"].tolist()[:3] == [True, True, False]
    assert "validation_macro_auc" not in found


def test_the_worst_change_is_found_and_logged():
    worst = worst_change(table(), "a")

    assert worst is not None
    assert (worst["change"], worst["fpr_05"]) == ("gamma", pytest.approx(2 / 3))
    metrics = benign_metrics(table(), "a")
    assert metrics["champion/benign/worst/fpr_05"] == pytest.approx(2 / 3)
    assert metrics["champion/benign/unchanged/fpr_05"] == pytest.approx(1 / 3)
    assert metrics["margin/benign/blur/fpr_05"] == 1
    assert metrics["network/benign/gamma/accuracy"] == pytest.approx(3 / 5)
    assert worst_change(table(), "nobody") is None
    assert worst_change(pd.DataFrame(), "a") is None


def test_a_configuration_is_measured_once_per_criterion():
    summary = pd.DataFrame(
        [
            ("x/both/all/0", "x", "both", "all"),
            ("x/both/all/1", "x", "both", "all"),
            ("x/targeted/all/0", "x", "targeted", "all"),
            ("x/targeted/without-cw/0", "x", "targeted", "without-cw"),
            ("y/none/clean/0", "y", "none", "clean"),
            ("z/targeted/reference/0", "z", "targeted", "reference"),
        ],
        columns=["detector", "configuration", "trained_criterion", "trained_on"],
    )

    assert first_seed_detectors(summary) == [
        "x/both/all/0",
        "x/targeted/all/0",
        "y/none/clean/0",
        "z/targeted/reference/0",
    ]
