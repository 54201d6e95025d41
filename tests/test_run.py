"""The whole job from the command line, each pipeline by itself, resuming after a kill."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from benchmarks.robustness import DAMAGES, files_read_back, metrics_file, notice, one_of_each_kind
from tests.projects import NETWORK, new_project, session, take_over

from adv_detect.algorithms.detector_keys import CONTROL_KEYS
from adv_detect.errors import DataError
from adv_detect.sharding import ShardStore

PIPELINES = (
    "target_training",
    "feature_extraction",
    "representatives",
    "adversarial_generation",
    "detector_training",
    "evaluation",
)
SHARDED = (
    "04_feature/features",
    "03_primary/adversarials",
    "05_model_input/trajectories",
    "05_model_input/control_trajectories",
    "06_models/detectors",
)
SHARDS_BEFORE_KILL = 6
DEADLINE_SECONDS = 600.0


def command(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start ``kedro run --env=test`` in a project folder."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-m", "kedro", "run", "--env=test", *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def modified(folder: Path) -> dict[str, int]:
    """When each shard and the network were written."""
    files = [file for name in SHARDED for file in (folder / "data" / name).rglob("*.safetensors")]
    files.append(folder / "data/06_models/network.safetensors")
    return {str(file.relative_to(folder / "data")): file.stat().st_mtime_ns for file in files if file.exists()}


@pytest.fixture(scope="session")
def finished_run(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which ``kedro run --env=test`` has succeeded, from nothing; tests leave its results as they are."""
    folder = new_project(tmp_path_factory.mktemp("finished_run"), project)
    process = command(folder)
    output, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, output[-3000:]
    return folder


def test_the_command_leaves_table_report_and_registered_model(finished_run):
    reporting = finished_run / "data/08_reporting"
    table = pd.read_csv(reporting / "detection_metrics.csv")
    report = (reporting / "report.html").read_text(encoding="utf-8")

    assert {"bim", "cw", "bim-confident", "macro", "worst"} <= set(table["attack"])
    assert {"margin", "untrained"} <= set(table["configuration"])
    assert table["auc"].dropna().between(0, 1).all()
    assert report.lower().startswith("<!doctype html>")
    assert "data:image/png;base64," in report
    assert '<script src="' not in report
    assert '<img src="http' not in report
    assert "adversarial_generation.attacks.bim.epsilon" in report
    assert "Params(" not in report

    client = mlflow.MlflowClient(f"sqlite:///{finished_run / 'mlflow.db'}")
    champion = client.get_model_version_by_alias("adv-detect", "champion")
    assert client.get_run(champion.run_id).info.status == "FINISHED"


def test_every_metric_row_belongs_to_a_detector_or_control(finished_run):
    table = pd.read_csv(finished_run / "data/08_reporting/detection_metrics.csv")
    detectors = ShardStore(str(finished_run / "data/06_models/detectors"))

    assert set(table["detector"]) == {*detectors.keys(), *CONTROL_KEYS}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_pipeline_runs_alone_from_what_lies_on_disk_and_makes_nothing_twice(finished_run, pipeline):
    before = modified(finished_run)
    records = pd.read_parquet(finished_run / "data/03_primary/attack_records.parquet")
    table = pd.read_csv(finished_run / "data/08_reporting/detection_metrics.csv")

    with session(finished_run) as one:
        one.run(pipeline_names=[pipeline])

    assert modified(finished_run) == before
    again = pd.read_parquet(finished_run / "data/03_primary/attack_records.parquet")
    pd.testing.assert_frame_equal(again, records)
    # scores are computed anew: how arrays lie in memory decides their last bits
    table_again = pd.read_csv(finished_run / "data/08_reporting/detection_metrics.csv")
    pd.testing.assert_frame_equal(table_again, table, rtol=1e-3, atol=1e-3)


def test_damaged_files_of_every_kind_are_named_and_made_again(finished_run, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(finished_run, folder)
    rng = random.Random(0)
    chosen = one_of_each_kind(files_read_back(folder), 6, rng)
    expected = metrics_file(folder)

    for index, path in enumerate(chosen):
        path.write_bytes(DAMAGES[index % len(DAMAGES)](path.read_bytes(), rng))
        assert str(path) in notice(path)
    with session(folder) as one:
        one.run()

    assert [path for path in files_read_back(folder) if notice(path)] == []
    assert metrics_file(folder) == expected


def test_no_tracking_run_stays_open(finished_run):
    with session(finished_run) as one:
        one.run(pipeline_names=["representatives"])
        left_open = mlflow.active_run()

    assert left_open is None


@pytest.fixture(scope="session")
def resumed(finished_run: Path, project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A project whose attacks were killed midway and then run again; what lay there in between."""
    folder = new_project(tmp_path_factory.mktemp("resumed"), project)
    take_over(folder, finished_run, *NETWORK, "04_feature/representatives.safetensors")
    process = command(folder, "--pipelines=adversarial_generation")
    store = ShardStore(str(folder / "data/03_primary/adversarials"))
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(store) < SHARDS_BEFORE_KILL and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed = {"code": process.returncode, "complete": store.complete, "files": modified(folder)}
    with session(folder) as one:
        one.run(pipeline_names=["adversarial_generation"])
    return killed | {"folder": folder}


def test_a_killed_generation_goes_on_where_it_stopped(resumed):
    after = modified(resumed["folder"])

    assert resumed["code"] == -signal.SIGKILL
    assert not resumed["complete"]
    assert SHARDS_BEFORE_KILL <= len(resumed["files"]) - 1 < len(after) - 1
    assert {name: after[name] for name in resumed["files"]} == resumed["files"]


def test_a_resumed_generation_ends_like_an_unbroken_one(resumed, finished_run):
    tables = [
        pd.read_parquet(folder / "data/03_primary/attack_records.parquet")
        for folder in (resumed["folder"], finished_run)
    ]
    stores = [ShardStore(str(folder / "data/03_primary/adversarials")) for folder in (resumed["folder"], finished_run)]

    pd.testing.assert_frame_equal(*tables)
    assert stores[0].fingerprints() == stores[1].fingerprints()
    assert stores[0].complete
    for key, content in stores[0]:
        other = stores[1].read(key)
        assert content.metadata | {"seconds": 0} == other.metadata | {"seconds": 0}
        assert content.tensors.keys() == other.tensors.keys()
        for name, value in content.tensors.items():
            # a process of another number of threads adds in another order
            torch.testing.assert_close(value, other.tensors[name], rtol=1e-4, atol=1e-4, msg=f"{key}: {name}")


def test_no_source_image_of_a_real_run_stands_in_two_splits(finished_run):
    records = pd.read_parquet(finished_run / "data/03_primary/attack_records.parquet")

    assert (records.groupby("source_id")["split"].nunique() == 1).all()
    assert set(records["split"]) == {"train", "validation", "test"}


def test_a_changed_attack_remakes_its_own_shards_only(resumed):
    folder = resumed["folder"]
    before = modified(folder)
    records = pd.read_parquet(folder / "data/03_primary/attack_records.parquet")

    with session(folder, adversarial_generation={"attacks": {"bim": {"arguments": {"steps": 4}}}}) as one:
        one.run(pipeline_names=["adversarial_generation"])

    after = modified(folder)
    remade = {name for name in before if after[name] != before[name]}
    assert after.keys() == before.keys()
    assert remade == {name for name in before if name.startswith("03_primary/adversarials/bim/")}
    changed = pd.read_parquet(folder / "data/03_primary/attack_records.parquet")
    others = [table[table["attack"] != "bim"].reset_index(drop=True) for table in (records, changed)]
    pd.testing.assert_frame_equal(*others)
    assert not changed[changed["attack"] == "bim"].equals(records[records["attack"] == "bim"])


def test_the_notebook_runs_on_a_finished_run(finished_run, project):
    cells = json.loads((project / "notebooks/explore_run.ipynb").read_text(encoding="utf-8"))["cells"]
    script = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    where = {"ADV_DETECT_PROJECT": str(finished_run), "ADV_DETECT_ENV": "test", "OMP_NUM_THREADS": "1"}

    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        env=os.environ | where,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )

    assert done.returncode == 0, done.stderr[-3000:]


def test_a_wrong_value_ends_the_command_with_a_message(finished_run):
    process = command(finished_run, "--params=adversarial_generation.attacks.bim.attack=nonsense")
    output, _ = process.communicate(timeout=DEADLINE_SECONDS)

    assert process.returncode == 1
    ending = " ".join(output.split())[-700:]
    assert "attacks.bim.attack: expected one of [<dotted path of a foolbox attack class>, bim, cw" in ending
    assert "got 'nonsense'" in ending


def test_the_further_pipelines_run_from_what_the_main_job_left(finished_run, tmp_path):
    folder = tmp_path / "further"
    shutil.copytree(finished_run, folder)
    process = command(folder, "--pipelines=adaptive_attack,face_recognition")
    output, _ = process.communicate(timeout=DEADLINE_SECONDS)

    assert process.returncode == 0, output[-3000:]
    reporting = folder / "data/08_reporting"
    summary = pd.read_csv(reporting / "adaptive_summary.csv")
    assert {"selective", "worst", "union"} <= set(summary["attack"])
    verification = pd.read_csv(reporting / "face_verification.csv")
    assert verification["fooled"].between(0, 1).all()
    report = (reporting / "report.html").read_text(encoding="utf-8")
    for section in ("If the attacker knows the detector", "Face verification", "Face identification"):
        assert section in report


def test_detectors_are_not_measured_on_images_that_they_may_have_learned_from(finished_run, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(finished_run, folder)
    with session(folder, runtime={"seed": 1}) as one:
        one.run(pipeline_names=["adversarial_generation"])

    with (
        pytest.raises(DataError, match=r"trajectories: they belong to other images .*--pipeline=detector_training"),
        session(folder, runtime={"seed": 1}) as one,
    ):
        one.run(pipeline_names=["evaluation"])
