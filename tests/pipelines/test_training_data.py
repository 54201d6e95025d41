"""What a configuration says of its training data, and a run without any attack."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from adv_detect.algorithms.detectors import score_activations
from adv_detect.errors import ConfigurationError
from adv_detect.jobs.activations import read_activations
from adv_detect.jobs.detectors import restore
from adv_detect.names import ShardKey
from adv_detect.params import AdversarialGenerationParams, DetectorParams, DetectorTrainingParams
from adv_detect.pipelines import adversarial_generation, detector_training, evaluation
from adv_detect.pipelines.detector_training.nodes import train_detectors
from adv_detect.sharding import ShardStore
from adv_detect.validation.detectors import check_changes, check_detectors

EARLY = {"attack": "bim", "norm": "linf", "epsilon": 0.2, "arguments": {"steps": 4}, "max_images": 20}
ATTACKS = {"bim": EARLY, "bim-confident": EARLY | {"return_early": False}}
PLAIN = {"kind": "mlp", "hidden": 4}
BOTH = PLAIN | {"train_forms": ["early", "confident"], "train_against": ["blur-1"]}
DENSITY = {"kind": "density", "learns_from": "clean", "arguments": {"neighbours": 3}}
FURTHER = ("network_weights", "twin", "representatives", "test_images", "train_images")


def training(**configurations: Any) -> DetectorTrainingParams:
    return DetectorTrainingParams.model_validate(
        {"configurations": configurations, "criteria": ["untargeted"], "fit": {"epochs": 1}}
    )


def attacks(**changes: Any) -> AdversarialGenerationParams:
    return AdversarialGenerationParams.model_validate({"attacks": ATTACKS | changes})


@pytest.fixture
def made(finished, workshop, tmp_path):
    """Runs attacks and training of detectors on the finished run's network."""
    from kedro.io import MemoryDataset

    def run(name: str, detectors: DetectorTrainingParams, generation: AdversarialGenerationParams) -> Any:
        blocks = {"detector_training": detectors, "adversarial_generation": generation}
        shop = workshop(tmp_path / name, **blocks)
        for one in FURTHER:
            shop.catalog[one] = MemoryDataset(finished[one], copy_mode="assign")
        shop.run(adversarial_generation.create_pipeline())
        shop.run(detector_training.create_pipeline().to_nodes("fix_thresholds"))
        return shop

    return run


def splits(store: ShardStore, attack: str) -> set[str]:
    return {ShardKey.parse(key).split for key in store.select(attack=attack)}


def test_confident_attacks_and_benign_changes_are_made_and_learned_where_asked(made):
    shop = made("asked", training(plain=PLAIN, both=BOTH), attacks())
    detectors = shop["detectors"]

    assert splits(shop["adversarials"], "bim-confident") == {"train", "validation", "test"}
    assert {ShardKey.parse(key).split for key in shop["activations"].select(variant="benign/blur-1")} == {
        "train",
        "validation",
    }
    learned = {name: detectors.metadata(f"{name}/untargeted/all/0") for name in ("plain", "both")}
    assert learned["plain"]["attacks"] == ["bim"]
    assert learned["both"]["attacks"] == ["bim", "bim-confident"]
    assert not any("benign" in key or "confident" in key for key in learned["plain"]["learned_from"])
    assert any(key.startswith("benign/blur-1/train") for key in learned["both"]["learned_from"])

    blocks = [shop[f"params:{name}"] for name in ("adversarial_generation", "runtime")]
    alone = train_detectors(shop["activations"], shop["representatives"], training(plain=PLAIN), *blocks)
    key = "plain/untargeted/all/0"
    assert alone.fingerprints[key] == detectors.fingerprint(key)
    summary = shop["detector_summary"].set_index("detector")["validation_benign_fpr_05"]
    assert summary.to_dict() == {key: pytest.approx(false_alarms(shop, key)) for key in detectors}


def false_alarms(shop: Any, key: str) -> float:
    """Share of blurred validation images above the 5% threshold, of those that keep their class."""
    store, limits = shop["activations"], shop["thresholds"].set_index(["detector", "rate"])["threshold"]
    detector = restore(shop["detectors"], key, shop["representatives"]).detector
    flagged = []
    for name in store.select(split="validation", natural=True, variant="benign/blur-1"):
        changed, clean = store[name], store[ShardKey.parse(name).natural.text].tensors
        before = dict(zip(clean["source_index"].tolist(), clean["predicted"].tolist(), strict=True))
        same = [before[one] for one in changed.tensors["source_index"].tolist()] == changed.tensors["predicted"].numpy()
        scores = score_activations(detector, read_activations(changed)).numpy()
        flagged += (scores[same] > limits[key, "05"]).tolist()
    return sum(flagged) / len(flagged)


def test_confident_attacks_are_met_in_the_test_alone_where_nobody_asks(made):
    shop = made("unasked", training(plain=PLAIN), attacks())

    assert splits(shop["adversarials"], "bim-confident") == {"test"}
    assert not shop["activations"].select(variant="benign")


def test_a_run_without_attacks_shows_false_alarms_and_p_values(made):
    none = AdversarialGenerationParams(attacks={"bim": None})
    shop = made("clean", training(density=DENSITY), none)
    shop.run(evaluation.create_pipeline().to_nodes("measure_detection", "measure_benign_changes"))

    metrics, scores = shop["detection_metrics"], shop.scores
    rows = metrics[metrics["configuration"] == "density"]
    assert rows["attack"].tolist() == ["natural"]
    mine = scores[(scores["detector"] == "density/none/clean/0") & (scores["split"] == "test")]
    assert rows["n_natural"].tolist() == [len(mine)]
    assert rows["fpr_05"].item() == pytest.approx(mine["verdict_fpr_05"].mean())
    assert mine["p_value"].between(0, 1).all()
    assert set(shop["benign_changes"]["configuration"]) >= {"density"}
    assert pd.isna(shop["detector_summary"]["validation_macro_auc"]).all()


@pytest.mark.parametrize(
    ("one", "changes", "match"),
    [
        (DENSITY | {"learns_from": "attacks"}, {}, r"x\.learns_from: expected 'clean', as kind 'density' does"),
        (DENSITY | {"train_forms": ["confident"]}, {}, r"x\.train_forms: kind 'density' learns from no attack"),
        (
            {"kind": "margin", "train_against": ["blur-1"]},
            {},
            r"x\.train_against: kind 'margin' is not trained on anything",
        ),
        ({"kind": "multiview"}, {}, r"x\.train_forms: expected \[early, confident\], got \['early'\]"),
        (BOTH, {"bim-confident": None}, r"x\.train_forms: 'confident' needs an attack of that form with train: true"),
        ({"kind": "multiview", "arguments": {"topk": 3}}, {}, r"x\.arguments: .*'topk' \(did you mean 'top_k'\?\)"),
    ],
)
def test_training_data_that_does_not_fit_is_refused(one, changes, match):
    with pytest.raises(ConfigurationError, match=match):
        check_detectors(training(x=one), attacks(**changes))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("blur-2", r"configurations\.x\.train_against: .*blur-1.*'blur-2' \(did you mean 'blur-1'\?\)"),
        ("noise-10", r"configurations\.x\.train_against: 'noise-10' stands .* with train: false"),
    ],
)
def test_benign_changes_that_are_not_for_training_are_refused(blocks, name, match):
    with pytest.raises(ConfigurationError, match=match):
        check_changes(training(x=PLAIN | {"train_against": [name]}), blocks["evaluation"])


def test_without_attacks_a_detector_that_learns_from_them_is_refused():
    with pytest.raises(ConfigurationError, match="'untargeted' needs an attack with train: true"):
        check_detectors(training(plain=PLAIN), AdversarialGenerationParams(attacks={}))


def test_the_text_of_a_configuration_is_that_of_before_where_it_says_nothing_new():
    plain = DetectorParams.model_validate(PLAIN)

    assert "train_" not in repr(plain)
    assert repr(DetectorParams.model_validate(PLAIN | {"learns_from": "attacks"})) == repr(plain)
    assert "train_against=('blur-1',)" in repr(DetectorParams.model_validate(BOTH))
