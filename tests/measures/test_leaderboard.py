"""Comparison of detectors: by hand on a small table, and what the paired bootstrap says of planted differences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from adv_detect.measures.detection_metrics import measure_scores
from adv_detect.measures.detector_keys import DETECTOR_COLUMNS, SUMMARY_FIGURES, describe_detectors
from adv_detect.measures.leaderboard import beyond_chance, compared_rows, measured_leaderboard

N = 60
ATTACKS = {"bim": "early", "cw": "early", "bim-far": "confident", "ddn": "unseen"}
SHIFTS = {
    "good/both/all/0": 3.0,
    "good/both/all/1": 3.2,
    "good/targeted/all/0": -9.0,  # for one criterion alone: not compared beside those for both
    "good/both/without-cw/0": -9.0,
    "twin/both/all/0": 3.05,
    "density/none/clean/0": 1.0,
    "margin": 0.5,
    "untrained/0": 0.0,
}


def rows(detector: str, shift: float, number: int) -> list[pd.DataFrame]:
    """Scores that differ between detectors by their shift and a little noise of their own."""
    shared, own = np.random.default_rng(0), np.random.default_rng([1, number])
    frames = []
    for attack, form, criterion in [
        ("natural", "none", "none"),
        *((attack, form, one) for attack, form in ATTACKS.items() for one in ("targeted", "untargeted")),
    ]:
        scores = (
            shared.normal(size=N) + 0.01 * own.normal(size=N) + shift * (attack != "natural") * (1 + (attack == "cw"))
        )
        frames.append(
            pd.DataFrame(
                {
                    "detector": detector, "source_id": [f"image-{i}" for i in range(N)], "attack": attack,
                    "criterion": criterion, "form": form, "variant": "float", "split": "test", "score": scores,
                    "success": True, "correct": True, "verdict_fpr_05": scores > 1.6, "verdict_fpr_01": scores > 2.3,
                }
            )
        )  # fmt: skip
    return frames


def described() -> pd.DataFrame:
    found = [
        (
            key,
            *key.split("/")[:1],
            "lstm",
            "",
            "",
            "",
            key.split("/")[1],
            key.split("/")[2],
            int(key.split("/")[3]),
            0.9,
            0.8,
        )
        for key in SHIFTS
        if key.count("/") == 3
    ]
    return describe_detectors(pd.DataFrame(found, columns=[*DETECTOR_COLUMNS, *SUMMARY_FIGURES]))


@pytest.fixture(scope="module")
def measured() -> tuple[pd.DataFrame, pd.DataFrame]:
    scores = pd.concat([one for i, (key, shift) in enumerate(SHIFTS.items()) for one in rows(key, shift, i)])
    return measure_scores(scores, described(), resamples=200)


@pytest.fixture(scope="module")
def table(measured) -> pd.DataFrame:
    benign = pd.DataFrame(
        {
            "detector": ["good/both/all/0"] * 3 + ["margin"],
            "change": ["unchanged", "blur-1", "noise-2", "blur-1"],
            "fpr_05": [0.9, 0.2, 0.4, 0.1],
        }
    )
    costs = pd.DataFrame(
        {
            "detector": ["good/both/all/0", "margin"], "forward_passes": [3.0, 1.0], "ms_per_image": [2.0, 1.0],
            "bytes": [400, 0], "differentiable": [True, True],
        }
    )  # fmt: skip
    return measured_leaderboard(*measured, benign, costs, confidence_level=0.95)


def test_there_is_a_row_per_configuration_that_learned_from_everything_and_the_margin(table):
    assert set(table["configuration"]) == {"good", "twin", "density", "margin"}
    known = table.set_index("configuration")
    assert known["learns_from"].to_dict() == {
        "good": "attacks",
        "twin": "attacks",
        "density": "clean",
        "margin": "nothing",
    }
    assert known["seeds"].to_dict() == {"good": 2, "twin": 1, "density": 1, "margin": 1}
    assert known["trained_criterion"]["good"] == "both"
    assert table["configuration"].tolist()[2:] == ["density", "margin"]


def test_figures_are_means_over_seeds_and_the_worst_is_the_least_of_these(table, measured):
    metrics = measured[0]
    mine = metrics[metrics["detector"].isin(["good/both/all/0", "good/both/all/1"]) & metrics["attack"].isin(ATTACKS)]
    by_attack = {
        (attack, criterion): part["auc"].sum() / 2
        for (attack, criterion), part in mine.groupby(["attack", "criterion"])
    }
    early = {key: value for key, value in by_attack.items() if key[0] in ("bim", "cw")}
    good = table.set_index("configuration").loc["good"]

    assert good["early_attacks"] == 4
    assert good["early_auc_mean"] == pytest.approx(sum(early.values()) / 4)
    assert good["early_auc_worst"] == pytest.approx(min(early.values()))
    assert good["early_worst_attack"] == "/".join(min(early, key=early.__getitem__))
    assert good["unseen_attacks"] == good["confident_attacks"] == 2
    found = mine[mine["form"] == "unseen"].groupby("criterion")["tpr_at_fpr_05"].mean()
    assert good["unseen_tpr_05_worst"] == pytest.approx(found.min())
    assert good["fpr_05"] == pytest.approx(mine.drop_duplicates("detector")["fpr_05"].mean())
    assert (good["benign_fpr_05"], good["benign_change"]) == (0.4, "noise-2")
    assert (good["forward_passes"], good["bytes"]) == (3.0, 400)
    assert (good["attacks"], good["above_margin"]) == (8, 8)
    assert np.isnan(table.set_index("configuration").loc["margin", "above_margin"])
    assert np.isnan(good["features_auc_mean"])


def test_what_is_alike_is_not_told_apart_and_what_is_worse_is(table, measured):
    known = table.set_index("configuration")
    best = known["early_auc_mean"].idxmax()

    assert known.loc[best, "early_behind"] == 0
    assert not beyond_chance(known.loc[best], "early")
    assert not beyond_chance(known.loc["twin"], "unseen")
    assert beyond_chance(known.loc["density"], "unseen")
    resamples = measured[1].pivot_table(index="resample", columns=["detector", "form"], values="auc")
    good = (resamples["good/both/all/0"]["early"] + resamples["good/both/all/1"]["early"]) / 2
    mine = {"good": good, "twin": resamples["twin/both/all/0"]["early"]}
    low, high = np.percentile(mine[best] - resamples["density/none/clean/0"]["early"], [2.5, 97.5])
    assert known.loc["density", "early_behind_low"] == pytest.approx(low)
    assert known.loc["density", "early_behind_high"] == pytest.approx(high)


def test_resamples_centre_on_the_mean_area(measured):
    metrics, resamples = measured
    means = compared_rows(metrics).groupby(["detector", "form"])["auc"].mean()
    drawn = resamples.groupby(["detector", "form"])["auc"].agg(["mean", "std", "count"])

    assert set(drawn.index) == set(means.index)
    assert (drawn["count"] == 200).all()
    assert ((drawn["mean"] - means).abs() < 0.5 * drawn["std"] + 1e-6).all()


def test_without_both_a_configuration_has_a_row_per_criterion_on_its_own_attacks():
    keys = {"a/targeted/all/0": 1.0, "a/untargeted/all/0": 2.0, "margin": 0.5}
    scores = pd.concat([one for i, (key, shift) in enumerate(keys.items()) for one in rows(key, shift, i)])
    names = [(key, "a", "lstm", "", "", "", key.split("/")[1], "all", 0, 0.9, 0.8) for key in keys if "/" in key]
    detectors = describe_detectors(pd.DataFrame(names, columns=[*DETECTOR_COLUMNS, *SUMMARY_FIGURES]))
    metrics, resamples = measure_scores(scores, detectors, resamples=20)
    costs = pd.DataFrame(columns=["detector", "forward_passes", "ms_per_image", "bytes", "differentiable"])

    table = measured_leaderboard(metrics, resamples, pd.DataFrame(), costs, confidence_level=0.95)

    assert table[["configuration", "trained_criterion", "early_attacks"]].to_numpy().tolist() == [
        ["a", "untargeted", 2],
        ["a", "targeted", 2],
        ["margin", "none", 4],
    ]


def test_without_any_attack_false_alarms_stand_alone():
    scores = pd.concat([rows("density/none/clean/0", 1.0, 0)[0]])
    detectors = described()
    metrics, resamples = measure_scores(
        scores, detectors[detectors["detector"] == "density/none/clean/0"], resamples=20
    )
    costs = pd.DataFrame(columns=["detector", "forward_passes", "ms_per_image", "bytes", "differentiable"])

    table = measured_leaderboard(metrics, resamples, pd.DataFrame(), costs, confidence_level=0.95)

    assert table["configuration"].tolist() == ["density"]
    assert table["early_auc_mean"].isna().all()
    assert table["fpr_05"].item() == pytest.approx(scores["verdict_fpr_05"].mean())
