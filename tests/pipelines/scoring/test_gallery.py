"""Pictures of the page, for a colour network with a twin."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from adv_detect.algorithms.bands import natural_bands
from adv_detect.algorithms.detectors import StoredDetector, TwinDetector, score_activations
from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.algorithms.representatives import Representatives
from adv_detect.datasets.file_sources import FolderSource
from adv_detect.networks.target import build_target
from adv_detect.params import DetectorParams, NetworkParams
from adv_detect.pipelines.scoring.gallery import explain, gallery
from adv_detect.reporting.blocks import Figure, Text
from adv_detect.serving.bundle import ScoringBundle
from adv_detect.serving.pictures import Picture, PictureScorer
from adv_detect.serving.verdicts import Judge

CLASSES = ("ant", "bee", "cat")
SHAPE = (3, 32, 24)


@pytest.fixture(scope="module")
def bundle() -> ScoringBundle:
    params = NetworkParams(name="strided", arguments={"in_channels": 3, "image_shape": [32, 24]})
    network, twin = (
        build_target(params, class_names=CLASSES, image_shape=SHAPE, seed=seed).freeze() for seed in (0, 1)
    )
    images = torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        clean = network_activations(network, images, network.spec.layers, twin=twin)
    points = [part[:3].clone() for part in clean.features.values()]
    representatives = Representatives(
        network.spec.layers, CLASSES, points, points, [torch.eye(one.shape[1]) for one in points], [[*CLASSES]] * 3
    )
    kind = DetectorParams(kind="twin")
    facts = {"params": kind.model_dump(mode="json")}
    stored = StoredDetector("twin", TwinDetector(), kind, facts, score_activations(TwinDetector(), clean).sort().values)
    metadata = {"name": "adv-detect", "fpr": 0.05, "fprs": [0.05]}
    return ScoringBundle(
        network, representatives, stored, metadata, twin=twin, bands=natural_bands(clean, representatives)
    )


@pytest.fixture(scope="module")
def rows(bundle, tmp_path_factory) -> tuple[pd.DataFrame, FolderSource]:
    folder = tmp_path_factory.mktemp("colours")
    for number, size in enumerate([(32, 24), (64, 100)]):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    read = [Picture(f"{number}.png", (folder / f"{number}.png").read_bytes) for number in range(2)]
    judge = Judge(bundle, review=0.2, reject=0.1, model_version="x/1")
    table = judge.table(PictureScorer(bundle).score(read))
    return pd.concat([table, table.head(1).assign(path="gone.png")]), FolderSource(str(folder))


def test_columns_of_the_twin(rows, bundle):
    table = rows[0]
    assert table["twin_class"].isin(CLASSES).all()
    assert np.exp(-table["score"].to_numpy()) == pytest.approx(table["twin_belief"].to_numpy(), rel=1e-5)
    assert table["resized"].tolist() == [False, True, False]
    assert table["views_changed"].isna().all()


def test_each_picture_is_a_figure_and_one_that_is_gone_a_text(rows, bundle):
    first, second, gone = gallery(rows[0], bundle, rows[1])
    assert isinstance(first, Figure)
    assert isinstance(second, Figure)
    assert isinstance(gone, Text)
    assert "**gone.png**" in gone.text
    drawn = np.asarray(Image.open(io.BytesIO(first.figure)).convert("RGB")).astype(int)
    assert (drawn.max(axis=2) - drawn.min(axis=2) > 100).mean() > 0.01  # colours, not grey


def test_words_name_layers_classes_and_twin(rows, bundle):
    row = rows[0].iloc[0].copy()
    layers = bundle.network.spec.layers
    row["predicted_class"], row["early_class"], row["twin_class"], row["twin_belief"] = "ant", "bee", "cat", 0.01
    row["departing_layers"] = f"{layers[1]}, {layers[0]}"
    row[f"departure.{layers[0]}"], row[f"departure.{layers[1]}"] = -1.26, 3.0
    row["views_changed"] = "blur"
    told = explain(row, bundle)
    assert told.startswith("named **ant**, score ")
    assert f"nearest to **bee**; outside of the middle 95 % of natural images of ant at {layers[1]} (+3.0)" in told
    assert f"{layers[0]} (-1.3)" in told
    assert "views that name another class: blur" in told
    order = ["the twin names **cat** and gives ant a probability of 0.01;", "views that name", "nearest to **bee**"]
    assert sorted(order, key=told.index) == order
    assert told.endswith(f"{layers[0]} (-1.3).")
