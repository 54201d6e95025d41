"""Gates that ask the twin for the similarity: thresholds and decisions by hand."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from adv_detect.measures.faces.gate import (
    FALSE_ACCEPT,
    FALSE_REJECT,
    NOT_READ,
    PAIRS,
    VALIDATION,
    GateThreshold,
    clean_condition,
    clean_pair_rows,
    gate_table,
)
from adv_detect.measures.faces.gate_forms import (
    Gate,
    joined_thresholds,
    list_gates,
    similarity_thresholds,
    thresholds_of,
)
from adv_detect.measures.faces.second_opinion import crossfit_parts
from adv_detect.names import DODGING, IMPERSONATION

DETECTOR = GateThreshold(VALIDATION, 0.05, 0.5, 40)
TWIN = GateThreshold(VALIDATION, 0.05, NOT_READ, 0, twin=0.4, n_pairs=20)
FORMS = {"detector": [DETECTOR], "similarity": [TWIN], "both": joined_thresholds([DETECTOR], [TWIN])}
CASES = {
    "wrong": [True, True, True, True, False, False, False, False],
    "score": [0.6, 0.4, 0.6, 0.4] * 2,  # over 0.5 is flagged
    "twin_score": [0.3, 0.3, 0.4, np.nan] * 2,  # below 0.4 is turned away, and so is what is missing
}


@pytest.mark.parametrize(
    ("kind", "form", "after"),
    [
        # pairs 1 to 4 are decided wrongly; flagged are 1, 3, 5, 7; turned away by the twin 1, 2, 4, 5, 6, 8
        (IMPERSONATION, "detector", 2),
        (IMPERSONATION, "similarity", 1),
        (IMPERSONATION, "both", 0),
        (FALSE_ACCEPT, "similarity", 1),
        (DODGING, "detector", 2),
        (DODGING, "similarity", 7),  # people told apart by the twin are not recognised either
        (DODGING, "both", 4),  # 2, 4, 6 and 8 are not flagged
        (FALSE_REJECT, "detector", 6),
        (FALSE_REJECT, "similarity", 7),
        (FALSE_REJECT, "both", 8),
    ],
)
def test_decisions_of_each_form_by_hand(kind, form, after):
    facts = clean_condition(kind, "known")
    (row,) = gate_table(pd.DataFrame({**facts, **CASES}), FORMS[form]).to_dict("records")
    assert (row["n"], row["before"], row["after"]) == (8, 0.5, after / 8)
    assert row["flagged"] == (0.0 if form == "similarity" else 0.5)
    assert row["parted"] == (0.0 if form == "detector" else 0.75)
    assert row["n_twin_pairs"] == (0 if form == "detector" else 20)


def test_an_image_that_misleads_the_network_and_not_the_twin_is_turned_away():
    """Accepted by the network, passed by the detector: the twin alone ends it."""
    facts = clean_condition(IMPERSONATION, "known")
    case = pd.DataFrame([facts | {"wrong": True, "score": 0.0, "twin_score": 0.1}])
    after = {form: gate_table(case, thresholds)["after"].item() for form, thresholds in FORMS.items()}
    assert after == {"detector": 1.0, "similarity": 0.0, "both": 0.0}


def protocol(same_scores, folds):
    return pd.DataFrame({"same": True, "fold": folds, "twin_score": same_scores})


def test_thresholds_rest_on_clean_pairs_of_the_same_person(caplog):
    pairs = protocol(np.linspace(0.5, 0.99, 50), [0] * 25 + [1] * 25)
    pairs = pd.concat([pairs, pairs.assign(same=False, twin_score=0.0)])
    with caplog.at_level(logging.WARNING):
        found = similarity_thresholds(np.arange(100) / 100, pairs, [0.01, 0.05])
    # of 100 one may lie below at 1 %, five at 5 %; of 50 two at 5 %; without a fold 25 are left, too few for 1 %
    told = [(one.calibrated_on, one.fpr, round(one.twin, 9), one.n_pairs) for one in found]
    assert told == [(VALIDATION, 0.01, 0.01, 100), (VALIDATION, 0.05, 0.05, 100), (PAIRS, 0.05, 0.52, 50)]
    assert "thresholds from pairs at the rates 0.01 (needs 100): there are 25 clean pairs" in caplog.text
    assert all(np.isnan(one.value) for one in found)


def test_too_few_validation_pairs_give_no_threshold(caplog):
    pairs = protocol(np.linspace(0, 1, 50), [0] * 50)
    with caplog.at_level(logging.WARNING):
        found = similarity_thresholds(np.arange(19.0), pairs, [0.01, 0.05])
    assert [(one.calibrated_on, one.fpr) for one in found] == [(PAIRS, 0.05)]
    assert "from validation at the rates 0.01 (needs 100), 0.05 (needs 20): there are 19 clean pairs" in caplog.text


def test_each_fold_is_told_apart_by_the_others():
    same = np.array([True, True, True, True, False])
    similarities, folds = np.array([0.1, 0.2, 0.8, 0.9, 0.5]), np.array([0, 0, 1, 1, 0])
    # of two pairs one may lie below: the threshold of fold 0 is 0.9, that of fold 1 is 0.2
    assert crossfit_parts(similarities, same, folds, 0.5).tolist() == [True, True, False, False, True]
    assert crossfit_parts(similarities[:2], same[:2], folds[:2], 0.5).tolist() == [True, False]


def test_clean_pairs_of_the_protocol_need_no_detector():
    pairs = protocol([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]).assign(score=0.7, detector_score=NOT_READ)
    pairs = pd.concat([pairs, pairs.assign(same=False, twin_score=[0.85, 0.95, 0.1, 0.3])])
    threshold = GateThreshold(PAIRS, 0.5, NOT_READ, 0, twin=0.8, n_pairs=4)
    rows = {row["kind"]: row for row in clean_pair_rows(pairs, pd.DataFrame(), [threshold], similarity=0.6)}
    assert (rows[FALSE_REJECT]["before"], rows[FALSE_REJECT]["after"]) == (0.0, 0.5)
    assert (rows[FALSE_ACCEPT]["before"], rows[FALSE_ACCEPT]["after"]) == (1.0, 0.5)


def test_gates_of_the_configured_forms():
    found = list_gates(("detector", "similarity", "both"), {"a/both/all/0": "a", "b/both/all/0": "b"})
    assert [(one.form, one.detector, one.label) for one in found] == [
        ("detector", "a/both/all/0", "a"),
        ("detector", "b/both/all/0", "b"),
        ("similarity", "", "similarity"),
        ("both", "a/both/all/0", "a and similarity"),
        ("both", "b/both/all/0", "b and similarity"),
    ]


def test_rates_that_the_twin_cannot_carry_are_left_out_of_both():
    strict = GateThreshold(VALIDATION, 0.01, 0.9, 40)
    (found,) = thresholds_of(Gate("both", "a", "a"), [strict, DETECTOR], [TWIN])
    assert (found.fpr, found.value, found.n, found.twin, found.n_pairs) == (0.05, 0.5, 40, 0.4, 20)
    assert thresholds_of(Gate("detector", "a", "a"), [strict, DETECTOR], [TWIN]) == [strict, DETECTOR]
    assert thresholds_of(Gate("similarity", "", "similarity"), [], [TWIN]) == [TWIN]
