"""The watch over a log, on a network and a detector with random weights."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from kedro_datasets.json import JSONDataset
from kedro_datasets.pandas import ParquetDataset
from tests.served import draw_images

from adv_detect.checks import check_run
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.measures.score_parts import FACTS, score_content
from adv_detect.params import MonitoringParams
from adv_detect.pipelines.monitoring import create_pipeline
from adv_detect.serving.bundle import score_images
from adv_detect.serving.log import LoggedBundle, ScoringLog
from adv_detect.sharding import ShardStore


def catalog_of(bundle, folder, scores, **changes):
    params = MonitoringParams(log=str(folder), **changes)
    data = {"champion_model": bundle, "scores": scores, "params:monitoring": params}
    return DataCatalog({name: MemoryDataset(value, copy_mode="assign") for name, value in data.items()})


def write_log(folder, bundle, images):
    log = ScoringLog(folder, bundle, clock=lambda: 1.75e9)
    LoggedBundle(bundle, log).score(images, {})
    log.flush()


@pytest.fixture(scope="module")
def scores(bundle, tmp_path_factory):
    """Clean validation images as the evaluation has scored them."""
    predicted = torch.tensor(score_images(bundle, draw_images(200, 1).numpy())["predicted_index"].to_numpy())
    shared = {"attack": "natural", "criterion": "none", "form": "none", "variant": "float", "split": "validation"}
    shared |= {"adversarial": False, "source_ids": [f"{number}" for number in range(200)]}
    facts, zeros = dict.fromkeys(FACTS, torch.zeros(200)) | {"predicted": predicted}, {"one": torch.zeros(200)}
    store = ShardStore(str(tmp_path_factory.mktemp("scores")))
    store.write("natural", score_content(facts, shared, zeros, zeros, {"one": {"05": 1.0}}), "made by hand")
    return store


def run(bundle, folder, scores, tmp_path):
    catalog = catalog_of(bundle, folder, scores)
    for name in ("monitoring_rates", "monitoring_copies"):
        catalog[name] = ParquetDataset(filepath=str(tmp_path / f"{name}.parquet"))
    catalog["monitoring_metrics"] = JSONDataset(filepath=str(tmp_path / "metrics.json"))
    for name in ("monitoring_page", "monitoring_rates_figure"):
        catalog[name] = MemoryDataset()
    SequentialRunner().run(create_pipeline(), catalog)
    return catalog


def test_clean_images_raise_no_alarm(bundle, scores, tmp_path, caplog):
    write_log(tmp_path / "log", bundle, draw_images(120, 7).numpy())
    with caplog.at_level(logging.WARNING):
        found = run(bundle, tmp_path / "log", scores, tmp_path)
    metrics = found.load("monitoring_metrics")
    assert metrics["monitoring/n"] == 120
    assert [name for name, value in metrics.items() if "/alarm/" in name and value] == []
    assert "ALARM" not in caplog.text
    page = found.load("monitoring_page")
    assert "No alarm." in page
    assert "data:image/png;base64," in page
    assert found.load("monitoring_rates_figure").startswith(b"\x89PNG")


def test_an_attacker_who_asks_many_times_is_named(bundle, scores, tmp_path, caplog):
    noise = np.random.default_rng(0).standard_normal((30, 1, 28, 28), dtype=np.float32)
    queries = np.clip(draw_images(1, 9).numpy() + 1e-4 * noise, 0, 1)
    write_log(tmp_path / "log", bundle, np.concatenate([draw_images(60, 7).numpy(), queries]))
    with caplog.at_level(logging.WARNING):
        found = run(bundle, tmp_path / "log", scores, tmp_path)
    assert found.load("monitoring_metrics")["monitoring/alarm/near_copies"] == 1.0
    largest = found.load("monitoring_copies").iloc[0]
    assert (largest["images"], largest["different"]) == (30, 30)
    assert "ALARM, near copies" in caplog.text
    assert "nearly copies of each other" in found.load("monitoring_page")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"log": None}, ConfigurationError, "monitoring.log: expected the folder of a log, got none; name it with"),
        ({"log": "nowhere"}, DataError, "expected files scores-.*.parquet in 'nowhere', got none; check the folder"),
    ],
)
def test_a_log_that_is_not_there_is_refused_before_work(bundle, scores, changes, error, message):
    catalog = catalog_of(bundle, "folder", scores)
    catalog["params:monitoring"] = MemoryDataset(MonitoringParams(**changes))
    with pytest.raises(error, match=message):
        check_run(create_pipeline(), catalog)


def test_a_file_that_is_no_log_is_named(bundle, scores, tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "scores-1.parquet")
    catalog = catalog_of(bundle, tmp_path, scores)
    with pytest.raises(DataError, match=r"scores-1.parquet: expected a file of a log of scored images"):
        SequentialRunner().run(create_pipeline().to_nodes("read_log"), catalog)
