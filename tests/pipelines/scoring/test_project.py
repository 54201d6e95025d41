"""`kedro run --pipeline=scoring` in a project, with the model of a finished run of its environment."""

from __future__ import annotations

import json
import shutil

import mlflow
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import roc_auc_score
from tests.projects import RESULTS, new_project, session

from adv_detect.command_line.main import main
from adv_detect.datasets.embedded_mnist import EmbeddedMNISTDataset
from adv_detect.datasets.sharded import ShardedSafetensorsDataset
from adv_detect.images import load_images
from adv_detect.serving.bundle import ScoringBundle, score_images

DIGITS = 6


@pytest.fixture(scope="module")
def folder(project, finished_run, tmp_path_factory):
    """A project with the champion of the finished run, its registry, and a folder of digits as pictures."""
    made = new_project(tmp_path_factory.mktemp("scoring"), project)
    shutil.copytree(finished_run / RESULTS / "06_models" / "champion", made / RESULTS / "06_models" / "champion")
    images = EmbeddedMNISTDataset(part="test", max_images=DIGITS).load()
    (made / "pictures").mkdir()
    for index in range(DIGITS):
        Image.fromarray(images[index][0][0].numpy()).save(made / "pictures" / f"{index}.png")
    (made / "pictures" / "notes.txt").write_text("no picture")
    return made


def test_a_folder_is_scored_with_one_command(folder):
    with session(folder, scoring={"images": "pictures", "show": 0}) as one:
        one.run(pipeline_names=["scoring"])
    table = pd.read_parquet(folder / RESULTS / "07_model_output" / "verdicts.parquet")
    bundle = ScoringBundle.load(folder / RESULTS / "06_models" / "champion")
    images = EmbeddedMNISTDataset(part="test", max_images=DIGITS).load()
    expected = score_images(bundle, load_images(images, range(DIGITS), bundle.network.spec.bounds).numpy())
    assert table["path"].tolist() == [*(f"{index}.png" for index in range(DIGITS)), "notes.txt"]
    assert table["score"].to_numpy()[:DIGITS] == pytest.approx(expected["adversarial_score"].to_numpy(), abs=1e-5)
    assert table["error"].tolist()[DIGITS:] == ["not an image file"]
    assert set(table["model_version"]) == {"adv-detect-test/1"}
    assert table["early_class"].notna().sum() == DIGITS
    page = (folder / RESULTS / "08_reporting" / "scoring.html").read_text(encoding="utf-8")
    assert "Verdicts on pictures" in page
    metrics = json.loads((folder / RESULTS / "08_reporting" / "scoring_metrics.json").read_text())
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("adv-detect-test").experiment_id])
    assert metrics["scoring_files"] == run.data.metrics["scoring_files"] == DIGITS + 1


def test_which_of_twenty_jpeg_files_are_attacked(folder, finished_run, monkeypatch):
    """By the console script, typed below the project's folder; the flagged ones are those that the page counts."""
    store = ShardedSafetensorsDataset(filepath=str(finished_run / RESULTS / "03_primary" / "adversarials")).load()
    key = next(one for one in store if str(one).startswith("bim-confident/untargeted/test"))
    natural = next(one for one in store if str(one).startswith("natural/test"))
    (folder / "jpeg").mkdir()
    for name, shard in (("attacked", store[key]), ("clean", store[natural])):
        for number, image in enumerate(shard.tensors["images"][-10:]):
            pixels = (image[0] * 255).round().to(torch.uint8).numpy()
            Image.fromarray(pixels).save(folder / "jpeg" / f"{name}-{number}.jpg", quality=90)
    (folder / "deep").mkdir()
    monkeypatch.chdir(folder / "deep")
    found = CliRunner().invoke(main, ["score", "../jpeg", "--env=test", "--show=0"])
    mlflow.set_registry_uri("")  # it follows the tracking address again, also in the tests that come after
    assert found.exit_code == 0, found.output
    table = pd.read_parquet(folder / RESULTS / "07_model_output" / "verdicts.parquet").set_index("path")
    assert len(table) == 20
    assert table["error"].isna().all()
    attacked = table.index.str.startswith("attacked")
    assert roc_auc_score(attacked, table["score"]) > 0.7
    metrics = json.loads((folder / RESULTS / "08_reporting" / "scoring_metrics.json").read_text())
    assert metrics["scoring_files"] == 20
    assert (table["verdict"] != "accept").sum() == table["flagged_at_fpr_05"].sum()
