"""Detectors of others go through training, evaluation and storage like our own, each by a line of configuration."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from kedro.io import MemoryDataset

from adv_detect.params import DetectorTrainingParams, ServingParams
from adv_detect.pipelines import detector_training, evaluation
from adv_detect.serving.bundle import ScoringBundle, score_images

GIVEN = ("twin", "adversarials", "network_weights", "representatives", "test_images", "source_splits", "attack_records")
CONFIGURATIONS = {
    "mahalanobis": {"kind": "mahalanobis"},
    "dknn": {"kind": "dknn", "arguments": {"k": 5}},
    "nic": {"kind": "nic"},
    "squeezing": {"kind": "feature-squeezing", "arguments": {"views": ["darker"]}},
}
LIBRARY = {
    "energy": {"kind": "pytorch_ood.detector.EnergyBased"},
    "knn": {"kind": "pytorch_ood.detector.KNN", "arguments": {"k": 3}},
}
HAS_LIBRARY = find_spec("pytorch_ood") is not None


@pytest.fixture(scope="module")
def shop(finished, workshop, tmp_path_factory):
    training = DetectorTrainingParams.model_validate(
        {
            "configurations": CONFIGURATIONS | (LIBRARY if HAS_LIBRARY else {}),
            "criteria": ["targeted", "untargeted"],
            "seeds": [0, 1],
            "views": {"darker": {"kind": "gamma", "arguments": {"gamma": 1.5}}},
        }
    )
    made = workshop(tmp_path_factory.mktemp("others"), detector_training=training, serving=ServingParams(fpr=0.1))
    for name in GIVEN:
        made.catalog[name] = MemoryDataset(finished[name], copy_mode="assign")
    made.run(detector_training.create_pipeline())
    made.run(evaluation.create_pipeline().to_nodes("measure_detection"))
    return made


def test_each_is_trained_as_often_as_what_it_learns_from_asks_for(shop):
    expected = {f"mahalanobis/{criterion}/all/{seed}" for criterion in ("targeted", "untargeted") for seed in (0, 1)}
    expected |= {f"{name}/none/clean/{seed}" for name in ("dknn", "nic") for seed in (0, 1)}
    expected |= {"squeezing/none/nothing/0"}
    if HAS_LIBRARY:
        expected |= {"energy/none/nothing/0", "knn/none/clean/0", "knn/none/clean/1"}
    assert set(shop["detectors"]) == expected


def test_each_is_measured(shop):
    metrics = shop["detection_metrics"]
    measured = metrics[metrics["detector"].isin(set(shop["detectors"])) & (metrics["attack"] == "bim")]
    assert set(measured["detector"]) == set(shop["detectors"])
    assert measured["auc"].notna().all()


@pytest.mark.skipif(not HAS_LIBRARY, reason="pytorch-ood, of the extra ood, is not installed")
def test_one_of_the_library_is_served(shop, tmp_path):
    from dataclasses import replace

    from adv_detect.jobs.detectors import restore

    bundle = shop["champion_model"]
    served = replace(bundle, stored=restore(shop["detectors"], "knn/none/clean/0", shop["representatives"]))
    images = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)

    served.save(tmp_path)

    assert score_images(ScoringBundle.load(tmp_path), images).equals(score_images(served, images))
