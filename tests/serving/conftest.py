"""The tiny bundle registered in a tracking database, and served."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from benchmarks.serving import Served, serve

from adv_detect.datasets.champion import ChampionModelDataset
from adv_detect.serving.bundle import ScoringBundle


@dataclass(frozen=True)
class Registered:
    """Where a bundle was registered."""

    uri: str
    run_id: str
    bundle: ScoringBundle
    folder: Path


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
