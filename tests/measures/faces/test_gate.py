from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from adv_detect.measures.faces.gate import (
    FALSE_ACCEPT,
    FALSE_REJECT,
    KNOWN,
    PAIRS,
    PROTOCOL,
    VALIDATION,
    GateThreshold,
    attack_label,
    clean_condition,
    clean_pair_rows,
    crossfit_flags,
    gate_detectors,
    gate_table,
    gate_thresholds,
    higher_scores,
)
from adv_detect.measures.intervals import wilson_interval
from adv_detect.names import DODGING, IMPERSONATION

AT_HALF = GateThreshold(VALIDATION, 0.05, 0.5, 40)


def cases(kind, wrong, score):
    about = clean_condition(kind, KNOWN) if kind in (FALSE_ACCEPT, FALSE_REJECT) else attacked(kind)
    return pd.DataFrame({**about, "wrong": wrong, "score": score, "twin_score": float("nan")})


def attacked(kind):
    about = {"attack": "bim", "criterion": "targeted", "form": "early", "norm": "none", "epsilon": float("nan")}
    about |= {"knows": "nothing"}
    return about | {"people": KNOWN, "kind": kind}


@pytest.mark.parametrize(
    ("kind", "after"),
    [(IMPERSONATION, 1), (DODGING, 1), (FALSE_ACCEPT, 1), (FALSE_REJECT, 3)],
)
def test_decisions_before_and_after_by_hand(kind, after):
    # of four pairs two are decided wrongly, one of these is flagged, and so is one of those decided rightly
    wrong, score = [True, True, False, False], [0.6, 0.4, 0.7, 0.5]
    (row,) = gate_table(cases(kind, wrong, score), [AT_HALF]).to_dict("records")
    assert (row["n"], row["before"], row["after"], row["flagged"]) == (4, 0.5, after / 4, 0.5)
    assert (row["before_low"], row["before_high"]) == wilson_interval(2, 4)
    assert (row["after_low"], row["after_high"]) == wilson_interval(after, 4)
    assert (row["calibrated_on"], row["fpr"], row["threshold"], row["n_calibration"]) == (VALIDATION, 0.05, 0.5, 40)


def test_each_condition_and_threshold_is_a_row():
    both = pd.concat([cases(IMPERSONATION, [True], [0.6]), cases(FALSE_REJECT, [False], [0.6])])
    table = gate_table(both, [AT_HALF, GateThreshold(PAIRS, 0.05, 0.7, 9)])
    assert list(table["kind"]) == [IMPERSONATION, IMPERSONATION, FALSE_REJECT, FALSE_REJECT]
    assert list(table["after"]) == [0.0, 1.0, 1.0, 0.0]


def test_thresholds_rest_on_validation_images_and_on_images_of_the_pairs():
    found = gate_thresholds(np.arange(100.0), np.arange(20.0), [0.01, 0.05])
    told = [(one.calibrated_on, one.fpr, one.value, one.n) for one in found]
    # one of 100 may lie above at 1 %, five at 5 %; of 20 none and one
    assert told == [
        (VALIDATION, 0.01, 98.0, 100), (VALIDATION, 0.05, 94.0, 100), (PAIRS, 0.01, 19.0, 20), (PAIRS, 0.05, 18.0, 20)
    ]  # fmt: skip
    assert [one.calibrated_on for one in gate_thresholds(np.arange(3.0), np.zeros(0), [0.5])] == [VALIDATION]


def images_of(first, last, score):
    return pd.DataFrame({"first_fold": first, "last_fold": last, "score": score})


def test_pairs_are_flagged_at_thresholds_of_the_other_folds():
    images = images_of([0, 0, 1, 1], [0, 0, 1, 1], [1.0, 2.0, 10.0, 20.0])
    # of two images none may lie above: the threshold of fold 0 is 20, that of fold 1 is 2
    flags = crossfit_flags(np.array([19.0, 21.0, 1.5, 3.0]), images, np.array([0, 0, 1, 1]), 0.05)
    assert flags.tolist() == [False, True, False, True]


def test_an_image_of_two_folds_calibrates_neither():
    images = images_of([0, 0, 1], [0, 1, 1], [1.0, 100.0, 2.0])
    flags = crossfit_flags(np.array([3.0, 1.5]), images, np.array([0, 1]), 0.05)
    assert flags.tolist() == [True, True]  # above 2 of the one image of fold 1, above 1 of that of fold 0


def test_a_single_fold_is_judged_by_itself():
    images = images_of([0, 0], [0, 0], [1.0, 2.0])
    assert crossfit_flags(np.array([2.0, 1.0]), images, np.zeros(2, dtype=int), 0.05).tolist() == [False, False]


def test_clean_pairs_of_the_protocol():
    pairs = pd.DataFrame(
        {
            "score": [0.9, 0.9, 0.1, 0.9, 0.1],
            "same": [True, True, True, False, False],
            "fold": 0,
            "detector_score": [0.6, 0.4, 0.4, 0.4, 0.6],
            "twin_score": float("nan"),
        }
    )
    rejected, accepted = clean_pair_rows(pairs, images_of([0], [0], [0.0]), [AT_HALF], similarity=0.5)
    assert (rejected["kind"], rejected["people"], rejected["n"]) == (FALSE_REJECT, PROTOCOL, 3)
    assert (rejected["before"], rejected["after"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert (accepted["kind"], accepted["before"], accepted["after"]) == (FALSE_ACCEPT, 0.5, 0.5)


def test_an_image_without_a_score_counts_as_flagged():
    found = higher_scores({"a": 1.0, "b": 2.0, "c": float("nan")}, ["a", "a", "a"], ["b", "c", "d"])
    assert found.tolist() == [2.0, np.inf, np.inf]


def test_one_detector_of_each_configuration_stands_in_the_gate():
    rows = [
        ("a/targeted/all/0", "a", "targeted", "all"),
        ("a/both/all/0", "a", "both", "all"),
        ("a/both/all/1", "a", "both", "all"),
        ("a/both/without-cw/0", "a", "both", "without-cw"),
        ("b/targeted/all/0", "b", "targeted", "all"),
        ("twin/none/nothing/0", "twin", "none", "nothing"),
    ]
    summary = pd.DataFrame(rows, columns=["detector", "configuration", "trained_criterion", "trained_on"])
    assert gate_detectors(summary) == {
        "a/both/all/0": "a", "b/targeted/all/0": "b targeted", "twin/none/nothing/0": "twin"
    }  # fmt: skip


def test_attacks_are_named_with_their_budget():
    rows = [attacked(DODGING), attacked(DODGING) | {"form": "adaptive", "norm": "linf", "epsilon": 2 / 255}]
    assert list(attack_label(pd.DataFrame(rows))) == ["bim, early", "bim, linf 0.00784"]
