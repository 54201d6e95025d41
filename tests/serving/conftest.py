"""A tiny bundle made in memory, a tracking database, and the bundle registered in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
import torch

from adv_detect.algorithms.detectors import random_detector
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.representatives import Representatives
from adv_detect.algorithms.thresholds import thresholds_at_fpr
from adv_detect.datasets.champion import ChampionModelDataset
from adv_detect.networks.target import build_target
from adv_detect.params import DetectorParams, NetworkParams
from adv_detect.serving.bundle import ScoringBundle

CLASSES = tuple("abcdefghij")
FPRS = (0.01, 0.03, 0.05, 0.10)


def draw_images(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def bundle() -> ScoringBundle:
    """A network and a detector with random weights; class representatives are features of random images."""
    network = build_target(NetworkParams(), class_names=CLASSES, image_shape=(1, 28, 28)).freeze()
    features = extract_features(network, draw_images(len(CLASSES), 0), network.spec.layers)[1]
    params = DetectorParams(kind="mlp", representative="centroid", distance="euclidean", order="ranked")
    representatives = Representatives(
        layers=network.spec.layers,
        class_names=CLASSES,
        medoids=[one.clone() for one in features],
        centroids=features,
        whitening=[torch.eye(one.shape[1]) for one in features],
        medoid_source_ids=[list(CLASSES) for _ in features],
    )
    about = {"params": params.model_dump(), "layers": len(features), "classes": len(CLASSES), "thresholds": {}}
    about |= {"detector": "tiny/both/all/0", "name": "adv-detect", "fpr": 0.05, "attacks": ["bim", "cw"]}
    detector = random_detector(params, layers=len(features), classes=len(CLASSES), seed=0).eval()
    clean = ScoringBundle(network, representatives, detector, about).model().eval()(draw_images(200, 1))[1]
    about["thresholds"] = {f"{fpr:g}": value for fpr, value in thresholds_at_fpr(clean, FPRS).items()}
    return ScoringBundle(network, representatives, detector, about)


@dataclass(frozen=True)
class Registered:
    """Where a bundle was registered."""

    uri: str
    run_id: str
    bundle: ScoringBundle
    folder: Path


@pytest.fixture(scope="session")
def database(tmp_path_factory) -> str:
    """Address of a tracking database; made once, since that takes seconds."""
    folder = tmp_path_factory.mktemp("tracking")
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.MlflowClient(uri).create_experiment("adv-detect", artifact_location=str(folder / "artifacts"))
    return uri


@pytest.fixture
def tracking(database):
    """The database as the one that MLflow logs to during a test."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(database)
    yield database
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="session")
def registered(database, bundle, tmp_path_factory) -> Registered:
    """The bundle, saved within a run of the database and so registered."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(database)
    folder = tmp_path_factory.mktemp("models") / "champion"
    try:
        with mlflow.start_run(experiment_id="1") as run:
            ChampionModelDataset(filepath=str(folder)).save(bundle)
    finally:
        mlflow.set_tracking_uri(before)
    return Registered(database, run.info.run_id, bundle, folder)
