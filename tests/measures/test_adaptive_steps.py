"""Images lost against steps, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from adv_detect.measures.adaptive_steps import loss_by_steps


def records(first, *, total, evaded=None, attack="multi") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "source_id": [f"i{index}" for index in range(len(first))],
            "detector": "twin",
            "classifier": "network",
            "norm": "linf",
            "epsilon": 0.3,
            "criterion": "untargeted",
            "attack": attack,
            "first_success": first,
            "evaded_fpr_05": [one >= 0 for one in first] if evaded is None else evaded,
            "total_steps": total,
        }
    )


def test_the_share_of_lost_images_is_counted_up_to_each_number_of_steps():
    """Of five images three get through, after 3, 30 and 60 of 80 steps."""
    table = loss_by_steps(records([3, 30, 60, -1, -1], total=80))
    lost = dict(zip(table["steps"], table["lost"], strict=True))
    assert lost == {1: 0.0, 2: 0.0, 5: 0.2, 10: 0.2, 25: 0.2, 50: 0.4, 80: 0.6}
    assert set(table["n"]) == {5}
    assert set(table["late"]) == {0.2}, "one of five came in the second half"
    assert (table["lost_low"] <= table["lost"]).all()
    assert (table["lost_high"] >= table["lost"]).all()


def test_what_the_judge_did_not_confirm_is_not_lost():
    table = loss_by_steps(records([3, 4], total=10, evaded=[True, False]))
    assert table.set_index("steps").loc[10, "lost"] == pytest.approx(0.5)


def test_attacks_that_count_no_steps_are_left_out():
    assert loss_by_steps(records([-2, -2], total=np.nan)).empty
    both = pd.concat([records([1, -1], total=5), records([-2, -2], total=np.nan, attack="queries")])
    assert set(loss_by_steps(both)["attack"]) == {"multi"}
