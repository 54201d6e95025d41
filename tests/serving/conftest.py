"""A tiny bundle made in memory, a tracking database, and the bundle registered in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
import torch
from benchmarks.serving import Served, serve

from adv_detect.algorithms.detectors import StoredDetector, TrajectoryDetector, random_readout, score_activations
from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.representatives import Representatives
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
    readout = random_readout(params, layers=len(features), classes=len(CLASSES), seed=0)
    detector = TrajectoryDetector(representatives, params, readout).eval().requires_grad_(False)
    with torch.no_grad():
        clean = score_activations(detector, network_activations(network, draw_images(200, 1), network.spec.layers))
    facts = {"params": params.model_dump(mode="json"), "trained_criterion": "both", "attacks": ["bim", "cw"]}
    stored = StoredDetector("tiny/both/all/0", detector, params, facts, clean.sort().values)
    return ScoringBundle(network, representatives, stored, {"name": "adv-detect", "fpr": 0.05, "fprs": list(FPRS)})


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


@pytest.fixture(scope="session")
def served(registered, tmp_path_factory) -> Iterator[Served]:
    """The registered model behind `mlflow models serve`, on this machine only; made once, since that takes seconds."""
    environment = {"OMP_NUM_THREADS": "1", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    with serve(registered.uri, tmp_path_factory.mktemp("server"), environment=environment) as running:
        yield running
