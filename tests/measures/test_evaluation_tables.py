from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adv_detect.errors import DataError
from adv_detect.measures.detector_keys import DETECTOR_COLUMNS, SUMMARY_FIGURES
from adv_detect.measures.evaluation_tables import (
    attack_table,
    describe_detectors,
    format_score,
    metric_table,
    quantisation_table,
    reference_numbers,
    reference_table,
    score_samples,
    to_markdown,
    train_test_matrix,
)
from adv_detect.measures.intervals import wilson_interval

CONFIGURATIONS = {
    "cos": ("lstm", "medoid", "cosine", "fixed"),
    "ours": ("lstm", "medoid", "mahalanobis", "ranked"),
}
N = 40
THRESHOLD = 1.0


def block(detector: str, shift: float, **values: Any) -> pd.DataFrame:
    rng = np.random.default_rng(values.pop("seed"))
    split = values.get("split", "test")
    row = {"attack": "natural", "criterion": "none", "form": "none", "variant": "float", "split": split} | values
    scores = (rng.normal(size=N) + shift).astype(np.float32)
    success = row.pop("success", np.ones(N, dtype=bool))
    frame = pd.DataFrame(
        {"detector": detector, "source_id": [f"{split}-{i}" for i in range(N)], "score": scores, **row}
    )
    frame["success"] = success
    frame["correct"] = np.arange(N) >= 4
    frame["verdict_fpr_05"] = scores > THRESHOLD
    return frame


def make_scores(detectors: dict[str, float]) -> pd.DataFrame:
    frames = []
    for seed, (detector, shift) in enumerate(detectors.items()):
        frames += [block(detector, 0.0, seed=[seed, 1]), block(detector, 9.0, split="validation", seed=[seed, 2])]
        for index, attack in enumerate(("bim", "cw")):
            common = {"attack": attack, "criterion": "targeted", "form": "early"}
            half = np.arange(N) % 2 == 0
            success = half if attack == "cw" else np.ones(N, dtype=bool)
            frames.append(block(detector, shift - index, success=success, seed=[seed, 3, index], **common))
            survives = success & (np.arange(N) < 30)
            frames.append(block(detector, shift, variant="8bit", success=survives, seed=[seed, 4, index], **common))
            frames.append(block(detector, 0.0, variant="noise", success=success, seed=[seed, 5, index], **common))
        frames.append(block(detector, -shift, attack="bim-far", criterion="targeted", form="confident", seed=[seed, 6]))
    return pd.concat(frames, ignore_index=True)


KEYS = {
    "cos/targeted/all/0": 1.0,
    "cos/targeted/all/1": 1.4,
    "ours/targeted/all/0": 2.5,
    "ours/targeted/without-cw/0": 2.0,
    "cos/untargeted/all/0": 0.7,
    "margin": 1.2,
    "untrained/0": 0.0,
}


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    return make_scores(KEYS)


@pytest.fixture(scope="module")
def metrics(scores: pd.DataFrame) -> pd.DataFrame:
    return metric_table(scores, described(), resamples=100, seed=1)


def described(keys: Iterable[str] = KEYS, **more: tuple[str, ...]) -> pd.DataFrame:
    """The trained detectors as training lists them, and the controls."""
    rows, known = [], CONFIGURATIONS | more
    for key in keys:
        name, *trained = key.split("/")
        if name in known:
            rows.append((key, name, *known[name], trained[0], trained[1], int(trained[2]), 0.9, 0.8))
    return describe_detectors(pd.DataFrame(rows, columns=[*DETECTOR_COLUMNS, *SUMMARY_FIGURES]))


def one(metrics: pd.DataFrame, **where: object) -> pd.Series[Any]:
    rows = metrics
    for column, value in ({"variant": "float"} | where).items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def test_keys_are_described() -> None:
    summary = described().set_index("detector")
    ours = summary.loc["ours/targeted/without-cw/0", list(DETECTOR_COLUMNS[1:])]
    assert list(ours) == ["ours", "lstm", "medoid", "mahalanobis", "ranked", "targeted", "without-cw", 0]
    assert summary.loc["margin", "kind"] == "control"


def test_row_agrees_with_scikit_learn(scores: pd.DataFrame, metrics: pd.DataFrame) -> None:
    from sklearn.metrics import roc_auc_score

    key = "cos/targeted/all/0"
    test = scores[(scores["detector"] == key) & (scores["split"] == "test") & (scores["variant"] == "float")]
    cw = test[(test["attack"] == "cw") & test["success"]]
    natural = test[test["attack"] == "natural"]
    row = one(metrics, detector=key, attack="cw")
    expected = roc_auc_score(np.r_[np.ones(len(cw)), np.zeros(N)], np.r_[cw["score"], natural["score"]])
    assert row["auc"] == pytest.approx(expected)
    assert (row["n_adversarial"], row["n_natural"], row["n_attempted"], row["n_failed"]) == (20, N, N, 20)
    assert row["tpr_at_fpr_05"] == cw["verdict_fpr_05"].mean()
    assert row["fpr_05"] == natural["verdict_fpr_05"].mean()
    assert row["fpr_misclassified_05"] == natural[~natural["correct"]]["verdict_fpr_05"].mean()
    assert row["n_misclassified"] == 4
    failed = test[(test["attack"] == "cw") & ~test["success"]]
    assert row["failed_flagged_05"] == failed["verdict_fpr_05"].mean()
    assert row["auc_low"] < row["auc"] < row["auc_high"]


def test_summary_rows(metrics: pd.DataFrame) -> None:
    where = {"detector": "cos/targeted/all/0", "form": "early"}
    single = [one(metrics, attack=attack, **where)["auc"] for attack in ("bim", "cw")]
    assert one(metrics, attack="macro", **where)["auc"] == pytest.approx(np.mean(single))
    worst = one(metrics, attack="worst", **where)
    assert worst["auc"] == min(single)
    assert worst["worst_attack"] == ("bim", "cw")[int(np.argmin(single))]
    pooled = one(metrics, attack="all", **where)
    assert pooled["auc"] == pytest.approx(np.average(single, weights=[40, 20]))
    assert pooled["n_adversarial"] == 60
    assert one(metrics, attack="macro", detector="cos/targeted/all/0", form="confident")["n_attacks"] == 1


def test_rounded_images_count_survivors(metrics: pd.DataFrame) -> None:
    row = one(metrics, detector="margin", attack="cw", variant="8bit")
    assert (row["n_survived"], row["n_adversarial"]) == (15, 15)
    assert row["survival_rate"] == 0.75


def test_noise_stands_for_the_successes_and_has_no_worst(metrics: pd.DataFrame) -> None:
    assert one(metrics, detector="margin", attack="cw", variant="noise")["n_adversarial"] == 20
    assert metrics[(metrics["variant"] == "noise") & (metrics["attack"] == "worst")].empty


def test_gain_over_the_margin(metrics: pd.DataFrame) -> None:
    for attack in ("bim", "cw", "macro", "all"):
        ours = one(metrics, detector="ours/targeted/all/0", attack=attack, form="early")
        margin = one(metrics, detector="margin", attack=attack, form="early")
        assert ours["margin_gain"] == pytest.approx(ours["auc"] - margin["auc"])
        assert ours["margin_gain_low"] < ours["margin_gain"] < ours["margin_gain_high"]
        assert (margin["margin_gain"], margin["margin_gain_low"]) == (0.0, 0.0)
    worst = one(metrics, detector="ours/targeted/all/0", attack="worst", form="early")
    same = one(metrics, detector="ours/targeted/all/0", attack=worst["worst_attack"], form="early")
    assert worst["margin_gain"] == same["margin_gain"]


def test_row_order_does_not_matter(scores: pd.DataFrame, metrics: pd.DataFrame) -> None:
    shuffled = scores.sample(frac=1.0, random_state=0)
    again = metric_table(shuffled, described(), resamples=0)
    keys = ["detector", "attack", "criterion", "form", "variant"]
    both = metrics[[*keys, "auc"]].merge(again[[*keys, "auc"]], on=keys, validate="1:1")
    assert len(both) == len(metrics) == len(again)
    np.testing.assert_allclose(both["auc_x"], both["auc_y"])
    assert again["auc_low"].isna().all()


def test_an_attack_that_never_succeeds_has_no_auc(scores: pd.DataFrame) -> None:
    part = scores[scores["detector"] == "margin"].copy()
    part.loc[part["attack"] == "cw", "success"] = False
    metrics = metric_table(part, described(), resamples=10)
    row = one(metrics, attack="cw")
    assert np.isnan(row["auc"])
    assert (row["n_adversarial"], row["n_failed"]) == (0, N)
    assert one(metrics, attack="macro", form="early")["n_attacks"] == 1


def test_errors_name_what_is_missing(scores: pd.DataFrame) -> None:
    summary = described()
    with pytest.raises(DataError, match=r"missing are \['score'\]"):
        metric_table(scores.drop(columns="score"), summary)
    with pytest.raises(DataError, match="got also \\['margin'\\]"):
        metric_table(scores, summary[summary["detector"] != "margin"])
    with pytest.raises(DataError, match="expected rows of the split 'test', got only"):
        metric_table(scores[scores["split"] == "validation"], summary)
    with pytest.raises(DataError, match="expected natural test images of detector"):
        metric_table(scores[scores["attack"] != "natural"], summary)
    with pytest.raises(DataError, match="without NaN"):
        metric_table(scores.assign(score=np.nan), summary)


def test_reference_table(metrics: pd.DataFrame) -> None:
    table = reference_table(metrics, criterion="targeted", published={"LSTM + M + cos": {"cw": 0.904, "macro": 0.96}})
    assert list(table.columns) == ["detector", "bim", "cw", "macro", "worst"]
    assert list(table["detector"]) == [
        "LSTM + M + cos",
        "LSTM + M + Mahalanobis + ranked",
        "control: margin only",
        "control: untrained detector",
        "published: LSTM + M + cos",
    ]
    aucs = [one(metrics, detector=f"cos/targeted/all/{seed}", attack="cw")["auc"] for seed in (0, 1)]
    assert table.loc[0, "cw"] == f"{np.mean(aucs):.3f} ± {np.std(aucs, ddof=1):.3f}".replace("0.", ".")
    assert list(table.iloc[4, 1:]) == ["–", ".904", ".960", "–"]  # noqa: RUF001


def test_reference_numbers_of_the_other_criterion(metrics: pd.DataFrame) -> None:
    numbers = reference_numbers(metrics, criterion="targeted", trained="other")
    assert set(numbers["configuration"]) == {"cos", "margin", "untrained"}
    row = numbers[(numbers["configuration"] == "cos") & (numbers["attack"] == "bim")].iloc[0]
    assert row["mean"] == one(metrics, detector="cos/untargeted/all/0", attack="bim")["auc"]


def test_train_test_matrix(metrics: pd.DataFrame) -> None:
    matrix = train_test_matrix(metrics, configuration="ours", criterion="targeted")
    assert list(matrix.index) == ["all", "without-cw"]
    assert list(matrix.columns) == ["bim", "cw", "macro"]
    expected = one(metrics, detector="ours/targeted/without-cw/0", attack="cw")["auc"]
    assert matrix.loc["without-cw", "cw"] == expected


def test_quantisation_table(metrics: pd.DataFrame) -> None:
    table = quantisation_table(metrics, detector="ours/targeted/all/0", criterion="targeted").set_index("attack")
    assert list(table.loc["cw", ["n_adversarial", "n_survived", "survival_rate"]]) == [20, 15, 0.75]
    assert (
        table.loc["bim", "auc_8bit"]
        == one(metrics, detector="ours/targeted/all/0", attack="bim", variant="8bit")["auc"]
    )
    floats = metrics[metrics["variant"] == "float"].drop(columns="n_survived")
    assert quantisation_table(floats, detector="ours/targeted/all/0", criterion="targeted").empty


def test_attack_table() -> None:
    records = pd.DataFrame(
        {
            "attack": ["bim"] * 4 + ["cw"] * 2,
            "criterion": "untargeted",
            "success": [True, True, True, False, False, False],
            "l2": [1.0, 2.0, 6.0, 99.0, 0.0, 0.0],
            "linf": [0.1, 0.2, 0.3, 9.0, 0.0, 0.0],
            "gradient_evaluations": [1, 2, 3, 10, 5, 5],
        }
    )
    bim, cw = attack_table(records).to_dict("records")
    assert (bim["n_attacked"], bim["n_success"], bim["success_rate"]) == (4, 3, 0.75)
    assert (bim["success_low"], bim["success_high"]) == wilson_interval(3, 4)
    assert (bim["l2_mean"], bim["l2_median"], bim["gradient_evaluations"]) == (3.0, 2.0, 4.0)
    assert cw["success_rate"] == 0.0
    assert np.isnan(cw["l2_mean"])
    with pytest.raises(DataError, match=r"missing are \['l2'\]"):
        attack_table(records.drop(columns="l2"))


def test_score_samples(scores: pd.DataFrame) -> None:
    natural, attacks = score_samples(scores, detector="margin", criterion="targeted")
    assert {name: len(values) for name, values in attacks.items()} == {"bim": N, "cw": 20, "bim-far": N}
    assert len(natural) == N
    assert list(score_samples(scores, detector="margin", criterion="targeted", form="early")[1]) == ["bim", "cw"]
    with pytest.raises(DataError, match="expected natural test images of detector 'nobody'"):
        score_samples(scores, detector="nobody", criterion="targeted")


def test_markdown() -> None:
    table = pd.DataFrame({"a|b": ["x|y", "z"], "n": [3, 4], "auc": [0.98765, np.nan]})
    assert to_markdown(table) == (
        "| a\\|b | n | auc |\n| --- | --- | --- |\n| x\\|y | 3 | 0.988 |\n| z | 4 | – |\n"  # noqa: RUF001
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.9871, ".987"), (1.0, "1.000"), (0.0, ".000"), (float("nan"), "–")],  # noqa: RUF001
)
def test_format_score(number: float, text: str) -> None:
    assert format_score(number) == text


def test_attacks_on_features_stand_apart_from_the_summary(scores: pd.DataFrame) -> None:
    metrics = metric_table(scores, described(), on_features=("cw", "bim-far"), resamples=20, seed=1)
    key = "cos/targeted/all/0"
    bim, cw = (one(metrics, detector=key, attack=attack) for attack in ("bim", "cw"))

    assert (bim["aims_at"], cw["aims_at"]) == ("class", "features")
    for summary in ("macro", "worst", "all"):
        row = one(metrics, detector=key, attack=summary, form="early")
        assert row["auc"] == bim["auc"]
        assert row["n_adversarial"] == bim["n_adversarial"]
    far, macro = (one(metrics, detector=key, attack=name, form="confident") for name in ("bim-far", "macro"))
    assert macro["auc"] == far["auc"]  # there is no other in this form
    assert list(reference_table(metrics, criterion="targeted").columns) == ["detector", "bim", "macro", "worst", "cw"]


def test_a_published_detector_stands_in_the_table_of_the_paper() -> None:
    keys = {"cos/targeted/all/0": 1.0, "paper/targeted/reference/0": 2.0, "margin": 1.0}
    detectors = described(keys, paper=("bilstm", "medoid", "cosine", "fixed"))
    table = reference_table(metric_table(make_scores(keys), detectors, resamples=10), criterion="targeted")

    assert table["detector"].tolist() == ["LSTM + M + cos", "BiLSTM + M + cos", "control: margin only"]


def test_the_matrix_compares_detectors_of_one_kind_only() -> None:
    keys = {
        "ours/targeted/all/0": 2.5,
        "ours/targeted/all/1": 0.1,
        "ours/both/all/0": -2.0,
        "ours/targeted/without-cw/0": 2.0,
        "margin": 1.0,
    }
    metrics = metric_table(make_scores(keys), described(keys), resamples=10)
    matrix = train_test_matrix(metrics, configuration="ours", criterion="targeted")

    assert matrix.index.tolist() == ["all", "without-cw"]
    for attack in ("bim", "cw"):
        assert matrix.loc["all", attack] == one(metrics, detector="ours/targeted/all/0", attack=attack)["auc"]
