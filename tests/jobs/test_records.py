from __future__ import annotations

import pandas as pd
import pytest

from adv_detect.jobs.records import log_non_finite, with_tested_forms
from adv_detect.params import AdversarialGenerationParams, AttackParams

TEST_ALONE = {"splits": ["test"], "train": False}


def test_images_that_failed_by_nan_are_said_once_per_attack(caplog):
    records = pd.DataFrame({"attack": ["bim", "cw", "cw", "cw"], "non_finite": [False, True, False, True]})

    log_non_finite(records, "attack_records")

    assert [record.getMessage() for record in caplog.records] == [
        "attack cw: NaN or infinity in gradients, logits or pixels of 2 of 3 images, which count as failures "
        "(attack_records.non_finite)"
    ]


@pytest.mark.parametrize(
    ("attack", "form", "tested"),
    [
        ({"attack": "bim"}, "early", "early"),
        ({"attack": "bim"} | TEST_ALONE, "early", "unseen"),
        ({"attack": "bim", "return_early": False} | TEST_ALONE, "confident", "confident"),
        ({"attack": "cw", "arguments": {"confidence": 5.0}} | TEST_ALONE, "confident", "confident"),
    ],
)
def test_an_early_attack_that_no_detector_learns_from_is_unseen(attack, form, tested):
    params = AttackParams.model_validate(attack)

    assert (params.form, params.tested_form) == (form, tested)


def test_rows_of_other_attacks_and_natural_images_keep_their_form():
    attacks = AdversarialGenerationParams.model_validate(
        {"attacks": {"ddn": {"attack": "bim"} | TEST_ALONE, "cw": None}}
    )
    records = pd.DataFrame({"attack": ["natural", "ddn", "cw"], "form": ["none", "early", "confident"]})

    assert with_tested_forms(records, attacks)["form"].tolist() == ["none", "unseen", "confident"]
    assert records["form"].tolist() == ["none", "early", "confident"]
