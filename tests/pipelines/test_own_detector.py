"""A detector of one's own, named by dotted path, goes all the way without a change of any file here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kedro.io import MemoryDataset
from torch import Tensor

from adv_detect.algorithms.detectors import Activations, Detector, LearnsFrom
from adv_detect.errors import ConfigurationError
from adv_detect.params import AdaptiveAttackParams, DetectorTrainingParams, ServingParams
from adv_detect.pipelines import detector_training, evaluation
from adv_detect.pipelines.adaptive_attack.attacking import AttackSetting
from adv_detect.pipelines.adaptive_attack.nodes import attack_detectors, collect_adaptive_records
from adv_detect.serving.bundle import ScoringBundle, score_images
from adv_detect.sharding import ShardStore

KEY = "depth/none/clean/0"
GIVEN = (
    "adversarials",
    "network_weights",
    "twin",
    "representatives",
    "test_images",
    "source_splits",
    "attack_records",
)


class FeatureDepth(Detector):
    """How far the features of the last layer lie from those of clean images, in standard deviations."""

    learns_from = LearnsFrom.CLEAN

    def __init__(self, representatives, layer: str | None = None) -> None:
        super().__init__()
        self.layer = layer or representatives.layers[-1]
        width = representatives.medoids[representatives.layers.index(self.layer)].shape[1]
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def fit(self, clean: Activations, attacked: Activations | None, *, seed: int) -> list[dict[str, float]]:
        features = clean.features[self.layer]
        self.mean, self.std = features.mean(dim=0), features.std(dim=0).clamp_min(1e-3)
        return []

    def forward(self, activations: Activations) -> Tensor:
        return ((activations.features[self.layer] - self.mean) / self.std).square().mean(dim=1)


@pytest.fixture(scope="module")
def shop(finished, workshop, tmp_path_factory):
    """Detector training and evaluation of the finished run's images, with this one detector alone."""
    training = DetectorTrainingParams.model_validate(
        {"configurations": {"depth": {"kind": f"{__name__}.FeatureDepth"}}}
    )
    made = workshop(tmp_path_factory.mktemp("own"), detector_training=training, serving=ServingParams(fpr=0.1))
    for name in GIVEN:
        made.catalog[name] = MemoryDataset(finished[name], copy_mode="assign")
    made.run(detector_training.create_pipeline())
    made.run(evaluation.create_pipeline().to_nodes("measure_detection"))
    return made


def test_it_is_trained_once_and_measured_on_every_attack(shop):
    metrics = shop["detection_metrics"]
    mine = metrics[metrics["detector"] == KEY]

    assert list(shop["detectors"]) == [KEY]
    assert {"bim", "cw", "bim-confident", "macro"} <= set(mine["attack"])
    assert set(mine["criterion"]) == {"targeted", "untargeted"}
    assert mine["auc"].notna().any()
    assert shop["detector_summary"].loc[0, "trained_on"] == "clean"


def test_it_is_the_champion_and_scores_after_being_stored(shop, tmp_path):
    bundle = shop["champion_model"]
    images = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)

    bundle.save(tmp_path)

    assert bundle.stored.key == KEY
    assert score_images(ScoringBundle.load(tmp_path), images).equals(score_images(bundle, images))


def test_it_is_attacked(shop, adaptive_params, tmp_path):
    setting = AttackSetting(
        images=shop["test_images"],
        network=shop["network_weights"],
        representatives=shop["representatives"],
        activations=shop["activations"],
        substitute=None,
        runtime=shop["params:runtime"],
    )
    plan = attack_detectors(setting, shop["detectors"], shop["params:detector_training"], adaptive_params)
    store = ShardStore(str(tmp_path / "attacked"))
    for spec in plan.shards:
        store.write(spec.key, plan.work(spec.arguments), spec.fingerprint)

    records = collect_adaptive_records(store, ShardStore(str(tmp_path / "none")))

    assert set(records["detector"]) == {KEY}
    assert set(records["attack"]) == {"selective", "matching"}
    assert records["fooled"].any()
    assert (records["zero_gradient_share"] < 1).all()


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("mine.Nothing", "detector kind: .*'mine.Nothing'.*expected one of .*lstm.*dotted path"),
        ("torch.nn.Linear", "expected a subclass of adv_detect.algorithms.detectors.Detector"),
    ],
)
def test_what_is_no_detector_is_refused(kind, match):
    from adv_detect.algorithms.detectors import detector_class

    with pytest.raises(ConfigurationError, match=match):
        detector_class(kind)


def test_arguments_that_it_does_not_take_are_named(finished):
    from adv_detect.algorithms.detectors import build_detector
    from adv_detect.params import DetectorParams

    wrong = DetectorParams(kind=f"{__name__}.FeatureDepth", arguments={"layr": "x"})
    with pytest.raises(ConfigurationError, match=r"arguments of detector .*layr"):
        build_detector(wrong, finished["representatives"])


@pytest.fixture
def adaptive_params() -> AdaptiveAttackParams:
    """Two attacks that take a moment."""
    return AdaptiveAttackParams.model_validate(
        {
            "detectors": ["depth"],
            "budgets": {"linf": [0.3]},
            "max_images": 6,
            "attacks": {
                "selective": {"attack": "selective", "arguments": {"steps": 8}},
                "matching": {"attack": "matching", "arguments": {"steps": 4}},
            },
            "hardening": {"rounds": 0},
        }
    )
