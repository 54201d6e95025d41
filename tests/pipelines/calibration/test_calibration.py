"""Thresholds from clean pictures, on a network and a detector with random weights."""

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
from PIL import Image
from tests.served import FPRS, draw_images

from adv_detect.checks import check_run
from adv_detect.datasets.champion import ChampionModelDataset
from adv_detect.datasets.picture_files import list_pictures, readable_pictures
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.params import CalibrationParams, RuntimeParams, ServingParams
from adv_detect.pipelines.calibration import create_pipeline, nodes
from adv_detect.reporting import render_report
from adv_detect.serving.bundle import score_images
from adv_detect.serving.description import version_description, version_tags
from adv_detect.serving.pictures import PictureScorer
from adv_detect.serving.verdicts import Judge

COUNT = 110


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A nested folder of clean pictures, one of them twice, one damaged, one of another size, notes, a hidden file."""
    folder = tmp_path_factory.mktemp("clean")
    (folder / "more").mkdir()
    pixels = (draw_images(COUNT, 5) * 255).round().to(torch.uint8).numpy()
    for number, image in enumerate(pixels[:, 0]):
        Image.fromarray(image).save(folder / ("more" if number % 2 else ".") / f"{number:03d}.png")
    Image.fromarray(pixels[0, 0]).resize((60, 40)).save(folder / "wide.png")
    (folder / "zz-copy.png").write_bytes((folder / "000.png").read_bytes())
    (folder / "damaged.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_bytes((folder / "002.png").read_bytes())
    return folder


def catalog_of(bundle, folder, **changes):
    summary = pd.DataFrame({"detector": [bundle.stored.key], "validation_macro_auc": [0.9]})
    runtime = RuntimeParams(device="cpu", batch_size=32, progress=False)
    data = {"champion_model": bundle, "detector_summary": summary, "params:serving": ServingParams()}
    data |= {"params:calibration": CalibrationParams(images=str(folder), **changes), "params:runtime": runtime}
    return DataCatalog({name: MemoryDataset(value, copy_mode="assign") for name, value in data.items()})


@pytest.fixture(scope="module")
def calibrated(bundle, pictures, tmp_path_factory):
    """The pipeline has run; read-only."""
    catalog, folder = catalog_of(bundle, pictures), tmp_path_factory.mktemp("calibrated")
    for name in ("calibration_scores", "calibration_rates"):
        catalog[name] = ParquetDataset(filepath=str(folder / f"{name}.parquet"))
    catalog["calibration_check"] = JSONDataset(filepath=str(folder / "check.json"))
    for name in ("calibration_rates_csv", "calibration_metrics", "calibration_part"):
        catalog[name] = MemoryDataset()
    catalog["calibrated_model"] = ChampionModelDataset(filepath=str(folder / "model"), made_by="calibration")
    SequentialRunner().run(create_pipeline(), catalog)
    return catalog


def test_each_picture_is_a_row_and_what_cannot_be_used_has_a_reason(calibrated):
    scores = calibrated.load("calibration_scores").set_index("path")
    assert len(scores) == COUNT + 4
    assert scores.loc["damaged.png", "problem"] == scores.loc["notes.txt", "problem"] == "not an image file"
    assert scores.loc["zz-copy.png", "problem"] == "a copy of 000.png"
    assert (scores["problem"] == "").sum() == COUNT + 1
    assert scores["adversarial_score"].notna().sum() == COUNT + 1


def test_the_rows_are_those_that_scoring_would_give(calibrated, bundle, pictures):
    """The same files count, in the same order, with the same reasons, classes, scores and p-values."""
    found = list_pictures(str(pictures))
    scored = PictureScorer(bundle).score(readable_pictures(found.source, found.files))
    expected = Judge(bundle, review=0.05, reject=0.01, model_version="x").table(scored)
    table = calibrated.load("calibration_scores")
    assert list(table["path"]) == list(expected["path"])
    apart = ~table["problem"].str.startswith("a copy of")
    assert list(table["problem"][apart]) == list(expected["error"].fillna("")[apart])
    for name, other in (("adversarial_score", "score"), ("p_value", "p_value")):
        np.testing.assert_allclose(table[name][apart], expected[other][apart], rtol=1e-5, atol=1e-6)
    used = apart & (table["problem"] == "")
    assert list(table["predicted_class"][used]) == list(expected["predicted_class"][used])


def test_a_list_of_paths_is_taken_as_in_scoring(bundle, pictures, tmp_path):
    names = [f"{number:03d}.png" for number in range(0, COUNT, 2)]
    listed = pd.DataFrame({"file": [str(pictures / name) for name in [*names, names[0], "no.png"]]})
    listed.to_csv(tmp_path / "list.csv", index=False)
    params = CalibrationParams(images=str(tmp_path / "list.csv"), column="file", fprs=(0.05,))
    table = nodes.score_clean_pictures(bundle, params, RuntimeParams(device="cpu", batch_size=20, progress=False))
    assert list(table["path"]) == list(listed["file"])
    assert list(table["problem"][-2:]) == [f"a copy of {pictures / '000.png'}", "no such file"]
    assert table["adversarial_score"].notna().sum() == len(names)


def test_pictures_are_scored_as_the_model_scores_their_pixels(calibrated, bundle):
    scores = calibrated.load("calibration_scores").set_index("path")["adversarial_score"]
    pixels = (draw_images(COUNT, 5) * 255).round() / 255
    expected = score_images(bundle, pixels.numpy())["adversarial_score"]
    found = [scores[f"more/{number:03d}.png" if number % 2 else f"{number:03d}.png"] for number in range(COUNT)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_new_model_has_these_scores_and_nothing_else_changed(calibrated, bundle):
    found, table = calibrated.load("calibrated_model"), calibrated.load("calibration_scores")
    own = np.sort(table.loc[table["problem"] == "", "adversarial_score"].to_numpy())
    np.testing.assert_allclose(found.stored.clean_scores.numpy(), own, rtol=1e-6)
    # one of 111 may lie above a threshold at 1 %: the second largest
    assert found.threshold(0.01) == pytest.approx(own[-2])
    image = draw_images(1, 9).numpy()
    before, after = score_images(bundle, image), score_images(found, image)
    assert after["adversarial_score"][0] == pytest.approx(before["adversarial_score"][0])
    assert (after["n_clean"][0], before["n_clean"][0]) == (COUNT + 1, 200)


def test_the_table_has_the_rates_of_the_model(calibrated):
    rates = calibrated.load("calibration_rates")
    assert list(rates["fpr"]) == sorted(FPRS)
    assert (rates["n"] == COUNT + 1).all()
    metrics = calibrated.load("calibration_metrics")
    assert metrics["calibration/rate_after_at_0.05"] == rates.set_index("fpr").loc[0.05, "rate_after"]


def test_the_version_says_what_it_rests_on(calibrated, pictures):
    found = calibrated.load("calibrated_model")
    assert version_tags(found)["calibration_images"] == str(pictures)
    assert version_tags(found)["calibration_check"] == calibrated.load("calibration_check")["verdict"]
    assert f"on {COUNT + 1} clean pictures of a calibration" in version_description(found)
    assert found.metadata["promote"] is False


def test_the_section_of_the_report(calibrated):
    page = render_report(calibrated.load("calibration_part").report)
    assert f"<b>Calibration</b> sets the thresholds anew on {COUNT + 1}" in page.replace("strong>", "b>")
    assert "pictures for ± half the rate" in page
    assert "1,522" in page


def scores_of(values):
    rows = {"path": [f"{number}.png" for number in range(len(values))], "adversarial_score": values, "problem": ""}
    return pd.DataFrame(rows).assign(predicted_class="a", p_value=0.5, digest="")


@pytest.mark.parametrize(("promote", "moved"), [(True, False), ("anyway", True), (False, False)])
def test_a_mixture_is_named_and_does_not_become_the_champion(bundle, caplog, promote, moved):
    clean = bundle.stored.clean_scores.double().numpy()
    spread = float(np.ptp(clean))
    mixed = np.concatenate([clean[:150], clean.max() + spread * np.linspace(2, 3, 12)])
    params, runtime = CalibrationParams(images="folder", promote=promote), RuntimeParams(progress=False)
    with caplog.at_level(logging.WARNING):
        rates, _, check = nodes.compare_thresholds(bundle, scores_of(mixed), params, runtime)
        made = nodes.calibrate(bundle, scores_of(mixed), rates, check, params, ServingParams())
    assert "THESE PICTURES LOOK LIKE A MIXTURE of clean and attacked ones: 12 of 162" in caplog.text
    assert made.metadata["promote"] is moved
    assert ("the alias champion stays" in caplog.text) is (promote is True)
    part = nodes.write_calibration_part(
        scores_of(mixed), rates, check, pd.DataFrame({"detector": ["a"], "validation_macro_auc": [1.0]}), params
    )
    assert "161.png" in render_report(part.report)


def test_pictures_of_another_kind_may_become_the_champion(bundle, caplog):
    shifted = bundle.stored.clean_scores.double().numpy() + float(bundle.stored.clean_scores.std()) * 2
    params = CalibrationParams(images="folder", promote=True)
    with caplog.at_level(logging.WARNING):
        rates, _, check = nodes.compare_thresholds(bundle, scores_of(shifted), params, RuntimeParams())
        made = nodes.calibrate(bundle, scores_of(shifted), rates, check, params, ServingParams(name="own"))
    assert "MORE OF THESE 200 PICTURES LIE ABOVE" in caplog.text
    assert made.metadata["promote"] is True
    assert made.metadata["name"] == "own"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": None},
            r"calibration.images: expected clean pictures \(a folder.*, got none; name them with --params=",
        ),
        ({"images": "nowhere"}, "there is nothing at nowhere; expected a folder"),
        ({"fprs": (0.001,)}, r"at least 1000 clean pictures for a .* of 0.001 \(15,351 for .*got 114; .*fprs=\[0.05\]"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_before_work(bundle, pictures, changes, message):
    catalog = catalog_of(bundle, pictures)
    catalog["params:calibration"] = MemoryDataset(CalibrationParams(**({"images": str(pictures)} | changes)))
    with pytest.raises((ConfigurationError, DataError), match=message):
        check_run(create_pipeline(), catalog)


def test_pictures_that_cannot_be_used_do_not_count(bundle, tmp_path):
    for number in range(100):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    params = CalibrationParams(images=str(tmp_path))
    with pytest.raises(DataError, match=r"expected at least 100 clean pictures .* got 0; add pictures"):
        nodes.score_clean_pictures(bundle, params, RuntimeParams(device="cpu", progress=False))
