"""Verdicts on a folder of pictures, by a tiny model."""

from __future__ import annotations

import shutil
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from PIL import Image
from tests.served import draw_images

from adv_detect.algorithms.bands import natural_bands
from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.datasets.served_models import ServedModelsDataset
from adv_detect.datasets.sharded import ShardedSafetensorsDataset
from adv_detect.datasets.streamed_tables import StreamedCSVDataset, StreamedParquetDataset
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.images import content_digest, in_bounds
from adv_detect.params import RuntimeParams, ScoringParams, ServingParams
from adv_detect.pipelines.scoring import create_pipeline
from adv_detect.pipelines.scoring.checks import check
from adv_detect.pipelines.scoring.nodes import open_scoring_model
from adv_detect.serving.bundle import ScoringBundle, score_images
from adv_detect.validation.run import Run

READABLE = 24


PIXELS = (draw_images(41, 5) * 255).round().to(torch.uint8)


def picture(number: int) -> Image.Image:
    return Image.fromarray(PIXELS[number, 0].numpy())


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds next to nothing."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    )
    packed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def save_pictures(folder: Path, count: int) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    for index in range(count):
        place = folder if index % 2 else folder / "deep" / "er"
        picture(index).save(place / f"{index:03d}.png")


@pytest.fixture(scope="module")
def model(bundle) -> ScoringBundle:
    with torch.no_grad():
        clean = network_activations(bundle.network, draw_images(100, 2), bundle.network.spec.layers)
    return replace(bundle, bands=natural_bands(clean, bundle.representatives))


@pytest.fixture(scope="module")
def champion(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "champion"
    folder.mkdir()
    model.save(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """24 pictures of the network's size, one of another, and six files that cannot be used."""
    folder = tmp_path_factory.mktemp("pictures")
    save_pictures(folder, READABLE)
    picture(0).convert("RGB").resize((80, 60)).save(folder / "large.jpg")
    (folder / "bad").mkdir()
    (folder / "bad" / "empty.png").write_bytes(b"")
    (folder / "bad" / "notes.txt").write_text("no picture")
    (folder / "bad" / "cut.png").write_bytes((folder / "001.png").read_bytes()[:80])
    Image.fromarray(np.full((4, 4), 9.0, dtype=np.float32)).save(folder / "bad" / "mode.tif")
    (folder / "bad" / "bomb.png").write_bytes(png_of_size(20_000, 9_100))
    (folder / "bad" / "lost.png").symlink_to(folder / "nowhere.png")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


class Scoring:
    """Runs the pipeline on a catalog in a folder."""

    def __init__(self, folder: Path, champion: Path) -> None:
        self.folder, self.champion = folder, champion

    def run(self, images: object, *, engine: str = "local", shard_size: int = 10, **params: object) -> pd.DataFrame:
        runtime = RuntimeParams(device="cpu", shard_size=shard_size, progress=False, engine=engine)
        blocks = {"scoring": ScoringParams(images=str(images), **({"show": 0} | params)), "runtime": runtime}
        blocks["serving"] = ServingParams()
        place = str(self.folder / "verdicts")
        datasets = {f"params:{name}": MemoryDataset(one) for name, one in blocks.items()} | {
            "served_models": ServedModelsDataset(champion=str(self.champion)),
            "scoring_model": MemoryDataset(copy_mode="assign"),
            "scoring_summary": MemoryDataset(copy_mode="assign"),
            "scored_pictures": ShardedSafetensorsDataset(filepath=str(self.folder / "shards")),
            "verdicts": StreamedParquetDataset(filepath=f"{place}.parquet", made_by="scoring"),
            "verdicts_csv": StreamedCSVDataset(filepath=f"{place}.csv"),
            "scoring_metrics": MemoryDataset(),
            "scoring_page": MemoryDataset(),
        }
        self.catalog = DataCatalog(datasets)
        SequentialRunner().run(create_pipeline(), self.catalog)
        return self.catalog.load("verdicts")

    def __getitem__(self, name: str) -> object:
        return self.catalog.load(name)


@pytest.fixture
def scoring(tmp_path, champion) -> Scoring:
    return Scoring(tmp_path, champion)


@pytest.fixture(scope="module")
def scored(tmp_path_factory, champion, pictures) -> Scoring:
    made = Scoring(tmp_path_factory.mktemp("scored"), champion)
    made.run(pictures, show=1)
    return made


def test_each_file_has_a_row_and_each_picture_the_score_of_its_tensor(scored, model, pictures):
    table = scored["verdicts"].set_index("path")
    assert len(table) == READABLE + 7
    assert ".hidden.png" not in table.index
    names = [f"{index:03d}.png" if index % 2 else f"deep/er/{index:03d}.png" for index in range(READABLE)]
    expected = score_images(model, in_bounds(PIXELS[:READABLE], model.network.spec.bounds).numpy())
    found = table.loc[names]
    assert found["error"].isna().all()
    assert found["predicted_class"].tolist() == expected["predicted_class"].tolist()
    assert found["score"].to_numpy() == pytest.approx(expected["adversarial_score"].to_numpy(), abs=1e-5)
    assert found["p_value"].tolist() == pytest.approx(expected["p_value"].tolist())
    assert found["digest"].tolist() == [content_digest((pictures / name).read_bytes()) for name in names]
    assert not found["resized"].any()
    assert (found["seconds"] > 0).all()
    assert table["model_version"].nunique() == 1


def test_unreadable_files_have_a_row_with_the_reason(scored):
    table = scored["verdicts"].set_index("path")
    reasons = table.loc[[name for name in table.index if name.startswith("bad/")], "error"].to_dict()
    expected = {
        "bad/bomb.png": "too large to be decoded (",
        "bad/cut.png": "damaged (",
        "bad/empty.png": "empty file",
        "bad/lost.png": "cannot be read (No such file",
        "bad/mode.tif": "mode F (numbers) needs values from 0 to 1",
        "bad/notes.txt": "not an image file",
    }
    assert set(reasons) == set(expected)
    assert all(reasons[name].startswith(text) for name, text in expected.items()), reasons
    failed = table[table["error"].notna()]
    assert failed[["score", "p_value", "verdict", "predicted_class", "flagged_at_fpr_05"]].isna().all(axis=None)
    assert scored["scoring_metrics"]["scoring_unreadable"] == 6


def test_a_picture_of_another_size_is_scored_and_marked(scored):
    row = scored["verdicts"].set_index("path").loc["large.jpg"]
    assert (row["height"], row["width"], row["resized"]) == (60, 80, True)
    assert np.isfinite(row["score"])


def test_two_rates_make_three_verdicts(scored, model):
    table = scored["verdicts"]
    table = table[table["error"].isna()]
    assert ((table["score"] > model.threshold(0.05)) == table["flagged_at_fpr_05"]).all()
    assert ((table["score"] > model.threshold(0.01)) == table["flagged_at_fpr_01"]).all()
    wanted = np.where(table["flagged_at_fpr_01"], "reject", np.where(table["flagged_at_fpr_05"], "review", "accept"))
    assert table["verdict"].tolist() == wanted.tolist()


def test_layers_explain_the_verdict(scored, model):
    table = scored["verdicts"].set_index("path")
    layers = model.network.spec.layers
    row = table.loc["001.png"]
    outside = [name for name in layers if abs(row[f"departure.{name}"]) > 1]
    assert set(outside) == {one for one in row["departing_layers"].split(", ") if one}
    assert row["early_class"] in model.network.spec.class_names
    natural = table[table["error"].isna() & ~table["resized"].fillna(True)]
    inside = natural[[f"departure.{name}" for name in layers]].abs() <= 1
    assert inside.to_numpy().mean() > 0.8  # bands hold the middle 95 % of other natural images


def test_csv_says_what_parquet_says(scored):
    pd.testing.assert_frame_equal(
        pd.read_csv(scored.folder / "verdicts.csv")[["path", "score", "error"]],
        scored["verdicts"][["path", "score", "error"]],
        check_dtype=False,
    )


def test_the_page_needs_nothing_and_names_what_failed(scored):
    page = scored["scoring_page"]
    assert page.startswith("<!DOCTYPE html>")
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "bad/notes.txt" in page
    assert "of 25 pictures flagged at a false-positive rate of 0.05" in page
    assert page.count("data:image/png;base64") == 1


def test_a_second_run_reads_nothing_again_and_a_kill_loses_one_shard(scoring, pictures, monkeypatch):
    from adv_detect.datasets import file_sources
    from adv_detect.datasets.file_sources import FolderSource

    monkeypatch.setattr(file_sources, "SETTLED_SECONDS", 0.0)  # else files of this moment are not known by their times
    first = scoring.run(pictures)
    (scoring.folder / "shards" / "00000001.safetensors").unlink()
    read: list[str] = []
    whole = FolderSource.read
    monkeypatch.setattr(FolderSource, "read", lambda self, path: read.append(path) or whole(self, path))
    again = scoring.run(pictures)
    assert sorted(set(read)) == sorted(
        first["path"][10:20].drop(first.index[first["path"] == "bad/lost.png"], errors="ignore")
    )
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), first.drop(columns="seconds"))
    read.clear()
    other = scoring.run(pictures, review=0.2, reject=0.1)  # other rates need no pass of the network
    assert not read
    assert "flagged_at_fpr_20" in other


def test_a_changed_picture_is_scored_anew(scoring, pictures, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for number in (1, 3):
        shutil.copy(pictures / f"{number:03d}.png", folder)
    first = scoring.run(folder)
    picture(40).save(folder / "003.png")
    second = scoring.run(folder)
    assert first["digest"][0] == second["digest"][0]
    assert first["digest"][1] != second["digest"][1]


def test_zip_and_lists_give_the_same_scores(scoring, scored, pictures, tmp_path):
    names = ["001.png", "deep/er/002.png", "large.jpg", "bad/notes.txt"]
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for name in names:
            archive.write(pictures / name, name)
    listed = pd.DataFrame({"file": [str(pictures / name) for name in names] + ["missing.png", ""]})
    listed.to_csv(tmp_path / "list.csv", index=False)
    listed.to_parquet(tmp_path / "list.parquet")
    expected = scored["verdicts"].set_index("path").loc[names, "score"].to_numpy()
    by_zip = scoring.run(tmp_path / "some.zip").set_index("path").loc[names, "score"].to_numpy()
    assert by_zip == pytest.approx(expected, abs=1e-5, nan_ok=True)
    for name in ("list.csv", "list.parquet"):
        table = scoring.run(tmp_path / name, column="file")
        assert table["score"].to_numpy()[:4] == pytest.approx(expected, abs=1e-5, nan_ok=True)
        assert table["error"].tolist()[4:] == ["no such file", "the list has no path here"]


def test_any_filesystem_and_a_single_picture(scoring, scored, pictures):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/scoring-test/a/001.png", (pictures / "001.png").read_bytes())
    try:
        table = scoring.run("memory://scoring-test")
    finally:
        memory.rm("/scoring-test", recursive=True)
    expected = scored["verdicts"].set_index("path").loc["001.png"]
    assert table["path"].tolist() == ["a/001.png"]
    assert table["score"][0] == pytest.approx(expected["score"], abs=1e-5)
    assert scoring.run(pictures / "001.png")["digest"].tolist() == [expected["digest"]]


def test_nothing_readable_is_a_page_too(scoring, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no")
    table = scoring.run(tmp_path / "broken")
    assert table["error"].tolist() == ["not an image file"]
    assert "No file could be scored" in scoring["scoring_page"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("absent", "there is nothing at .*absent; expected a folder"),
        ("empty", "expected at least one picture, got none"),
    ],
)
def test_absent_and_empty_folders(scoring, tmp_path, place, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        scoring.run(tmp_path / place)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({}, ConfigurationError, "scoring.images: expected a folder, .*got null; say --params=scoring.images=FOLDER"),
        ({"images": "nowhere"}, DataError, "there is nothing at nowhere"),
        ({"images": "."}, DataError, r"there is no model in .*no-champion; make it with: kedro run \(with --env="),
        ({"images": "nowhere", "model": "other"}, DataError, "there is nothing at nowhere"),
    ],
)
def test_what_cannot_be_scored_is_said_before_work(champion, tmp_path, params, error, message):
    place = tmp_path / "no-champion" if params.get("images") == "." else champion
    blocks = {"params:scoring": MemoryDataset(ScoringParams(**params))}
    catalog = DataCatalog(blocks | {"served_models": ServedModelsDataset(champion=str(place))})
    with pytest.raises(error, match=message):
        check(Run(create_pipeline(), catalog))


def test_models_that_cannot_judge(champion, model, tmp_path):
    models, serving = ServedModelsDataset(champion=str(champion)).load(), ServingParams(name="adv-detect-lfw")
    params = ScoringParams(images="x")
    with pytest.raises(ConfigurationError, match="a model of this environment, 'adv-detect-lfw', got 'champion'"):
        open_scoring_model(models, params, serving)
    other = params.model_copy(update={"other_environments": True})
    assert open_scoring_model(models, other, serving).model_version.startswith("adv-detect/")
    with pytest.raises(DataError, match=r"there is no model in .*nowhere; make it with: kedro run"):
        open_scoring_model(ServedModelsDataset(champion=str(tmp_path / "nowhere")).load(), params, ServingParams())
    with pytest.raises(DataError, match="there is no model in some-folder; expected 'champion', an address such as"):
        open_scoring_model(models, params.model_copy(update={"model": "some-folder"}), ServingParams())
    bare = replace(model, stored=replace(model.stored, clean_scores=torch.zeros(0)))
    (tmp_path / "bare").mkdir()
    bare.save(tmp_path / "bare")
    with pytest.raises(DataError, match="expected the scores of clean images that thresholds rest on, got none"):
        open_scoring_model(models, params.model_copy(update={"model": str(tmp_path / "bare")}), ServingParams())


def test_rates_that_few_images_cannot_carry_are_named(champion, caplog):
    models = ServedModelsDataset(champion=str(champion)).load()
    open_scoring_model(models, ScoringParams(images="x", reject=0.001), ServingParams())
    assert "rates 0.001 rest on" in caplog.text
