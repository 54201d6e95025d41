"""A tiny bundle made in memory, and a tracking database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import torch

from adv_detect.algorithms.detectors import StoredDetector, TrajectoryDetector, random_readout, score_activations
from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.representatives import Representatives
from adv_detect.networks.target import build_target
from adv_detect.params import DetectorParams, NetworkParams
from adv_detect.serving.bundle import ScoringBundle

CLASSES = tuple("abcdefghij")
FPRS = (0.01, 0.03, 0.05, 0.10)


def draw_images(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def tiny_bundle() -> ScoringBundle:
    """Make a network and a detector with random weights; class representatives are features of random images."""
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


def tracking_database(folder: Path) -> str:
    """Make a tracking database with one experiment and return its address."""
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.MlflowClient(uri).create_experiment("adv-detect", artifact_location=str(folder / "artifacts"))
    return uri


@contextmanager
def logging_to(database: str) -> Iterator[str]:
    """Make a database the one that MLflow logs to, and end the runs that are left open in it."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(database)
    yield database
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(before)
