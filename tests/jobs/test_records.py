from __future__ import annotations

import pandas as pd

from adv_detect.jobs.records import log_non_finite


def test_images_that_failed_by_nan_are_said_once_per_attack(caplog):
    records = pd.DataFrame({"attack": ["bim", "cw", "cw", "cw"], "non_finite": [False, True, False, True]})

    log_non_finite(records, "attack_records")

    assert [record.getMessage() for record in caplog.records] == [
        "attack cw: NaN or infinity in gradients, logits or pixels of 2 of 3 images, which count as failures "
        "(attack_records.non_finite)"
    ]
