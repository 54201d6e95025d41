"""Checks that call out weak attacks, on planted records."""

from __future__ import annotations

import pandas as pd
import pytest

from adv_detect.errors import DataError
from adv_detect.measures.adaptive_checks import (
    epsilon_never_hurts,
    gradients_present,
    run_checks,
    scores_vary,
    unreliable_detectors,
)
from adv_detect.measures.adaptive_comparisons import (
    gradients_beat,
    is_unbounded,
    iterative_beats_single_step,
    unbounded_succeeds,
)


def table(rates: dict, *, n: int = 20, **changes) -> pd.DataFrame:
    """Records with the given success rate per (attack, epsilon)."""
    rows = []
    for (attack, epsilon), rate in rates.items():
        for index in range(n):
            success = index < round(rate * n)
            row = {
                "source_id": f"i{index}",
                "detector": "lstm",
                "classifier": "network",
                "attack": attack,
                "norm": "l2",
                "epsilon": epsilon,
                "criterion": "untargeted",
                "fooled": True,
                "evaded_fpr_01": success,
                "evaded_fpr_05": success,
                "detector_score": index / n,
                "l2": epsilon,
                "linf": 0.1,
                "gradient_evaluations": 5,
                "zero_gradient_share": 0.0,
            }
            rows.append(row | changes)
    return pd.DataFrame(rows)


def test_a_larger_budget_must_not_weaken_the_attack():
    good = epsilon_never_hurts(table({("pgd", 1.0): 0.2, ("pgd", 2.0): 0.6, ("pgd", 3.0): 0.6}))
    assert [result.passed for result in good] == [True]
    (bad,) = epsilon_never_hurts(table({("pgd", 1.0): 0.2, ("pgd", 2.0): 0.6, ("pgd", 3.0): 0.4}))
    assert not bad.passed
    assert "1: 0.200, 2: 0.600, 3: 0.400; a larger budget made the attack weaker" in bad.detail
    assert epsilon_never_hurts(table({("pgd", 1.0): 0.2})) == []


def test_a_fall_within_tolerance_passes():
    records = table({("pgd", 1.0): 0.6, ("pgd", 2.0): 0.55}, n=100)
    assert not epsilon_never_hurts(records)[0].passed
    assert epsilon_never_hurts(records, tolerance=0.06)[0].passed


def test_one_image_may_always_differ():
    assert epsilon_never_hurts(table({("pgd", 1.0): 0.6, ("pgd", 2.0): 0.55}, n=20))[0].passed
    assert not epsilon_never_hurts(table({("pgd", 1.0): 0.6, ("pgd", 2.0): 0.5}, n=20))[0].passed


def test_many_steps_must_not_do_worse_than_one():
    pairs = {"single": ["pgd"]}
    assert iterative_beats_single_step(table({("single", 1.0): 0.2, ("pgd", 1.0): 0.2}), pairs)[0].passed
    (bad,) = iterative_beats_single_step(table({("single", 1.0): 0.5, ("pgd", 1.0): 0.2}), pairs)
    assert not bad.passed
    elsewhere = pd.concat([table({("single", 1.0): 0.5}), table({("pgd", 2.0): 0.2})])
    assert iterative_beats_single_step(elsewhere, pairs) == []
    assert "pgd 0.200, single 0.500; many steps achieve less than one" in bad.detail


@pytest.mark.parametrize("kind", ["transfer", "queries", "random noise"])
def test_what_uses_no_gradient_must_not_beat_the_best_white_box_attack(kind):
    rates = {("weak", 1.0): 0.1, ("strong", 1.0): 0.5, ("blind", 1.0): 0.4}
    assert gradients_beat(table(rates), {kind: ["blind"]})[0].passed
    (bad,) = gradients_beat(table(rates | {("blind", 1.0): 0.9}), {kind: ["blind"]})
    assert not bad.passed
    assert bad.name == f"white-box beats {kind}"
    assert f"white-box strong 0.500, {kind} blind 0.900" in bad.detail
    assert gradients_beat(table({("strong", 1.0): 0.5}), {kind: []}) == []


def test_an_attack_on_few_images_is_compared_over_these_and_narrows_no_other_comparison():
    """Ten images: queries get through with two of the five that they met, white box with six of ten, transfer with
    five."""
    records = table({("strong", 1.0): 0.6, ("far", 1.0): 0.5, ("asked", 1.0): 0.2}, n=10)
    records = records[(records["attack"] != "asked") | records["source_id"].isin([f"i{one}" for one in range(5)])]
    transfer, queries = gradients_beat(records, {"transfer": ["far"], "queries": ["asked"]})
    assert "white-box strong 0.600, transfer far 0.500" in transfer.detail
    assert "white-box strong 1.000, queries asked 0.400" in queries.detail


def test_where_any_pixel_may_become_any_other_every_image_must_be_lost():
    records = table({("pgd", 0.3): 0.2, ("pgd", 1.0): 0.6, ("other", 1.0): 1.0}, norm="linf")
    assert [one.passed for one in unbounded_succeeds(records, 1.0)] == [True]
    (bad,) = unbounded_succeeds(records[records["attack"] == "pgd"], 1.0)
    assert not bad.passed
    assert "success 0.600 where any pixel may become any other" in bad.detail
    assert unbounded_succeeds(records[records["epsilon"] < 1], 1.0) == []
    assert unbounded_succeeds(records.assign(norm="l2"), 1.0) == []
    assert is_unbounded(records, 1.0).equals(records["epsilon"] == 1.0)
    assert not is_unbounded(records.assign(epsilon=float("nan")), 1.0).any(), "a search for the smallest has no budget"


@pytest.mark.parametrize(
    "check",
    [
        lambda r, names: gradients_beat(r, {"transfer": names}),
        lambda r, names: iterative_beats_single_step(r, {names[0]: []}),
    ],
)
def test_an_attack_without_records_is_an_error(check):
    with pytest.raises(DataError, match=r"expected attacks \['absent'\], got only \['pgd'\]"):
        check(table({("pgd", 1.0): 0.5}), ["absent"])


def test_zero_gradients_matter_only_on_images_that_withstood():
    masked = table({("pgd", 1.0): 0.5}, zero_gradient_share=0.9)
    assert not gradients_present(masked)[0].passed
    assert gradients_present(table({("pgd", 1.0): 1.0}, zero_gradient_share=0.9))[0].passed
    assert gradients_present(masked, limit=0.95)[0].passed
    assert gradients_present(masked, blind=["pgd"]) == []


def test_caught_images_are_not_hidden_by_images_that_were_never_fooled():
    records = table({("pgd", 1.0): 0.0}, n=40)
    records["fooled"] = records.index == 0
    records.loc[0, "zero_gradient_share"] = 1.0
    assert not gradients_present(records)[0].passed


def test_a_constant_detector_is_called_out():
    constant = table({("pgd", 1.0): 0.0}, detector_score=5.0)
    assert not scores_vary(constant)[0].passed
    assert not scores_vary(constant, natural_scores={"lstm": [5.0, 5.0]})[0].passed
    assert scores_vary(constant, natural_scores={"lstm": [0.0, 1.0]})[0].passed
    assert scores_vary(table({("pgd", 1.0): 0.0}))[0].passed


def test_reasons_are_collected_per_detector():
    good = table({("pgd", 1.0): 0.2, ("pgd", 2.0): 0.6})
    bad = table({("pgd", 1.0): 0.6, ("pgd", 2.0): 0.2}, detector="mlp", detector_score=1.0)
    results = run_checks(pd.concat([good, bad], ignore_index=True))
    reasons = unreliable_detectors(results)
    assert set(reasons) == {"mlp"}
    assert [reason.split(":")[0] for reason in reasons["mlp"]] == ["epsilon never hurts", "scores vary"]


def test_the_best_of_many_steps_is_held_against_one():
    rates = {("weak", 1.0): 0.1, ("strong", 1.0): 0.8, ("one", 1.0): 0.5}
    (good,) = iterative_beats_single_step(table(rates), {"one": ["weak", "strong"]})
    (bad,) = iterative_beats_single_step(table(rates), {"one": ["weak"]})

    assert good.passed
    assert "strong 0.800, one 0.500" in good.detail
    assert not bad.passed


def test_one_step_may_overshoot():
    checks = run_checks(table({("one", 1.0): 0.8, ("one", 2.0): 0.2, ("many", 1.0): 0.9, ("many", 2.0): 0.9}),
                        single_step={"one": ["many"]})  # fmt: skip
    assert all(check.passed for check in checks)


def test_a_weak_attack_on_one_judge_says_nothing_of_the_figures_of_another():
    good = table({("pgd", 1.0): 0.2, ("pgd", 2.0): 0.6})
    bad = table({("verification", 1.0): 0.6, ("verification", 2.0): 0.2}).assign(classifier="nearest_medoid")
    results = run_checks(pd.concat([good, bad], ignore_index=True))
    assert {one.judge for one in results} == {"network", "nearest_medoid"}
    assert unreliable_detectors(results, "network") == {}
    ((reason,),) = unreliable_detectors(results, "nearest_medoid").values()
    assert reason.startswith("epsilon never hurts: nearest_medoid verification")
    assert unreliable_detectors(results) == unreliable_detectors(results, "nearest_medoid")
