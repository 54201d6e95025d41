"""Figures on attacks that know the detector, against answers by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from adv_detect.errors import DataError
from adv_detect.measures.adaptive_metrics import (
    attack_summary,
    auc_under_attack,
    epsilon_curves,
    half_loss_distortion,
    half_loss_table,
)
from adv_detect.measures.adaptive_records import lost_images, spread_over_budgets
from adv_detect.measures.intervals import wilson_interval


def record(source, attack="selective", **changes) -> dict:
    row = {
        "source_id": source,
        "detector": "lstm",
        "classifier": "network",
        "attack": attack,
        "norm": "l2",
        "epsilon": 1.0,
        "criterion": "untargeted",
        "fooled": True,
        "evaded_fpr_01": False,
        "evaded_fpr_05": False,
        "detector_score": 1.0,
        "l2": 0.9,
        "linf": 0.2,
        "gradient_evaluations": 10,
        "zero_gradient_share": 0.0,
    }
    return row | changes


def through(source, attack="selective", **changes) -> dict:
    return record(source, attack, **({"evaded_fpr_01": True, "evaded_fpr_05": True} | changes))


@pytest.fixture
def records() -> pd.DataFrame:
    return pd.DataFrame(
        [
            through("a"),
            record("b"),
            record("c", fooled=False),
            through("d", evaded_fpr_05=False),
            record("a", "orthogonal"),
            through("b", "orthogonal"),
            through("c", "orthogonal"),
            record("d", "orthogonal"),
        ]
    )


def _row(table: pd.DataFrame, **wanted) -> pd.Series:
    picked = table[np.logical_and.reduce([table[key] == value for key, value in wanted.items()])]
    assert len(picked) == 1
    return picked.iloc[0]


def test_summary_by_hand(records):
    summary = attack_summary(records)
    selective = _row(summary, attack="selective")
    assert selective["n"] == 4
    assert selective["fooled_rate"] == 0.75
    assert selective["success_fpr_05"] == 0.25
    assert selective["success_fpr_01"] == 0.5
    assert selective["evaded_fpr_05"] == pytest.approx(1 / 3)
    assert selective["detected_fpr_05"] == pytest.approx(2 / 3)
    assert (selective["success_low_fpr_05"], selective["success_high_fpr_05"]) == wilson_interval(1, 4)
    worst = _row(summary, attack="worst")
    assert (worst["worst_attack"], worst["success_fpr_05"]) == ("orthogonal", 0.5)
    union = _row(summary, attack="union")
    assert (union["success_fpr_05"], union["success_fpr_01"], union["fooled_rate"]) == (0.75, 1.0, 1.0)


def test_union_is_never_below_the_worst_attack():
    generator = np.random.default_rng(0)
    rows = [
        record(f"i{image}", attack, evaded_fpr_05=bool(generator.random() < 0.3), epsilon=epsilon)
        for image in range(40)
        for attack in "xyz"
        for epsilon in (0.5, 1.0)
    ]
    summary = attack_summary(pd.DataFrame(rows)).set_index(["epsilon", "attack"])["success_fpr_05"]
    for epsilon in (0.5, 1.0):
        singles = summary[epsilon][["x", "y", "z"]]
        assert summary[epsilon]["worst"] == singles.max()
        assert summary[epsilon]["union"] >= singles.max()


def test_lost_images_by_hand(records):
    lost = lost_images(records).set_index("source_id")
    assert lost["lost_fpr_05"].to_dict() == {"a": True, "b": True, "c": True, "d": False}
    assert lost["lost_fpr_01"].all()


def test_order_of_rows_does_not_matter(records):
    shuffled = records.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(attack_summary(records), attack_summary(shuffled))


def test_attacks_without_a_budget_count_where_their_perturbation_fits():
    rows = [
        record("a", epsilon=0.5),
        record("a", epsilon=2.0),
        through("a", "cw", epsilon=None, l2=1.5),
        through("b", "cw", epsilon=None, l2=0.4),
    ]
    spread = spread_over_budgets(pd.DataFrame(rows)).set_index(["attack", "source_id", "epsilon"])
    assert not spread.loc[("cw", "a", 0.5), "evaded_fpr_05"]
    assert spread.loc[("cw", "a", 2.0), "evaded_fpr_05"]
    assert spread.loc[("cw", "b", 0.5), "evaded_fpr_05"]
    assert len(spread) == 6


def test_attacks_without_a_budget_stand_alone_where_there_is_none():
    summary = attack_summary(pd.DataFrame([through("a", "cw", epsilon=None), record("b", "cw", epsilon=None)]))
    assert summary["epsilon"].isna().all()
    assert set(summary["success_fpr_05"]) == {0.5}


def test_curves_ascend_in_epsilon_and_hold_the_union():
    rows = [
        through(s, epsilon=e, l2=e) if e >= need else record(s, epsilon=e, l2=e)
        for s, need in (("a", 1), ("b", 2))
        for e in (2.0, 0.5, 1.0)
    ]
    curves = epsilon_curves(pd.DataFrame(rows))
    for attack in ("selective", "union"):
        one = curves[curves["attack"] == attack]
        assert one["epsilon"].tolist() == [0.5, 1.0, 2.0]
        assert one["success_fpr_05"].tolist() == [0.0, 0.5, 1.0]


def test_half_loss_distortion_by_hand():
    rows = [through(s, l2=size) for s, size in (("a", 3.0), ("b", 1.0), ("c", 2.0))]
    rows += [record("d", l2=0.1), through("a", "orthogonal", l2=0.5)]
    assert half_loss_distortion(pd.DataFrame(rows)) == 1.0
    assert half_loss_distortion(pd.DataFrame(rows), norm="linf") == 0.2


def test_half_loss_distortion_is_none_when_fewer_than_half_are_lost():
    rows = [through("a"), record("b"), record("c")]
    assert half_loss_distortion(pd.DataFrame(rows)) is None
    table = half_loss_table(pd.DataFrame(rows))
    assert pd.isna(table["half_loss_l2_fpr_05"].iloc[0])
    assert table["n"].iloc[0] == 3


def test_half_loss_distortion_refuses_mixed_detectors():
    rows = [through("a"), through("a", detector="mlp")]
    with pytest.raises(DataError, match=r"expected one detector, got \['lstm', 'mlp'\]"):
        half_loss_distortion(pd.DataFrame(rows))
    assert len(half_loss_table(pd.DataFrame(rows))) == 2


def test_auc_agrees_with_scikit_learn_and_looks_at_fooled_images_only():
    generator = np.random.default_rng(1)
    scores, natural = generator.normal(1, 20, 30), generator.normal(0, 20, 50)
    rows = [record(f"i{i}", detector_score=score, fooled=i % 3 != 0) for i, score in enumerate(scores)]
    got = auc_under_attack(pd.DataFrame(rows), {"lstm": natural}).iloc[0]
    kept = np.array([score for i, score in enumerate(scores) if i % 3 != 0])
    expected = roc_auc_score(np.r_[np.zeros(50), np.ones(len(kept))], np.r_[natural, kept])
    assert got["auc"] == pytest.approx(expected)
    assert (got["n_adversarial"], got["n_natural"]) == (20, 50)


def test_auc_is_missing_when_nothing_was_fooled():
    table = auc_under_attack(pd.DataFrame([record("a", fooled=False)]), {"lstm": [0.0, 1.0]})
    assert pd.isna(table["auc"].iloc[0])
    with pytest.raises(DataError, match=r"missing \['lstm'\]"):
        auc_under_attack(pd.DataFrame([record("a")]), {})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame([record("a")]).drop(columns="l2"), r"missing \['l2'\]"),
        (pd.DataFrame([record("a")]).iloc[:0], "at least one row"),
        (pd.DataFrame([record("a"), record("a")]), "1 repeated rows"),
        (pd.DataFrame([through("a", fooled=False)]), "evading rows to be fooled, got 1"),
    ],
)
def test_bad_records_are_refused(table, message):
    with pytest.raises(DataError, match=message):
        attack_summary(table)


def test_an_image_stays_lost_at_larger_budgets_whatever_attack_ran_there():
    rows = [through("a", "matching", epsilon=1.0, l2=0.4), record("b", "matching", epsilon=1.0)]
    rows += [record(name, "selective", epsilon=epsilon) for name in "ab" for epsilon in (0.5, 1.0, 2.0)]
    lost = lost_images(pd.DataFrame(rows)).set_index(["epsilon", "source_id"])["lost_fpr_05"]

    assert {key: bool(value) for key, value in lost.items()} == {
        (0.5, "a"): True,  # its perturbation is that small
        (0.5, "b"): False,
        (1.0, "a"): True,
        (1.0, "b"): False,
        (2.0, "a"): True,
        (2.0, "b"): False,
    }
    curves = epsilon_curves(pd.DataFrame(rows))
    assert curves.loc[curves["attack"] == "union", "success_fpr_05"].tolist() == [0.5, 0.5, 0.5]


def test_a_targeted_success_is_an_untargeted_one_too_but_not_the_other_way_round():
    rows = [record("a"), through("b"), through("a", criterion="targeted"), record("b", criterion="targeted")]
    summary = attack_summary(pd.DataFrame(rows))
    union = summary[summary["attack"] == "union"].set_index("criterion")["success_fpr_05"]

    assert union.to_dict() == {"targeted": 0.5, "untargeted": 1.0}


def test_attacks_are_compared_over_the_images_that_all_of_them_met():
    rows = [record(name, "many") for name in "abcd"] + [through("c", "many", epsilon=1.0) | {"source_id": "e"}]
    rows += [through("a", "few"), record("b", "few")]
    summary = attack_summary(pd.DataFrame(rows))

    assert _row(summary, attack="many")["n"] == 5
    worst, union = (_row(summary, attack=name) for name in ("worst", "union"))
    assert (worst["worst_attack"], worst["n"], worst["success_fpr_05"]) == ("few", 2, 0.5)
    assert (union["n"], union["success_fpr_05"]) == (2, 0.5)


def test_classes_named_by_different_judges_are_not_mixed():
    rows = [record("a"), through("a", "deep", classifier="nearest_medoid")]
    summary = attack_summary(pd.DataFrame(rows))

    assert summary[summary["attack"] == "union"].set_index("classifier")["success_fpr_05"].to_dict() == {
        "network": 0.0,
        "nearest_medoid": 1.0,
    }
    with pytest.raises(DataError, match="one classifier"):
        half_loss_distortion(pd.DataFrame(rows))


def test_a_costly_attack_on_few_images_adds_to_the_union_and_narrows_nothing(records):
    """It met two of four images and got through with one that no other attack got."""
    asked = pd.DataFrame([through("d", "queries", epsilon=np.nan), record("a", "queries", epsilon=np.nan)])
    both = pd.concat([records, asked], ignore_index=True)

    plain, sparse = (attack_summary(both, sparse=names) for names in ((), ("queries",)))

    assert _row(plain, attack="union")["n"] == 2
    union = _row(sparse, attack="union")
    assert (union["n"], union["success_fpr_05"]) == (4, 1.0)
    assert _row(sparse, attack="worst")["n"] == 4
    assert _row(sparse, attack="queries")["n"] == 2
    alone = attack_summary(asked, sparse=("queries",))
    assert _row(alone, attack="union")["n"] == 2
