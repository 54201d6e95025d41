"""The whole job from the command line, each pipeline by itself, resuming after a kill, elsewhere and with others."""

from __future__ import annotations

import base64
import io
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks.robustness import DAMAGES, files_read_back, metrics_file, notice, one_of_each_kind
from nbclient import NotebookClient
from PIL import Image
from tests.projects import DEADLINE_SECONDS, NETWORK, RESULTS, command, new_project, session, take_over

from adv_detect.errors import BusyError, ConfigurationError, DataError, TrackingError
from adv_detect.locks import RunLock
from adv_detect.measures.detector_keys import CONTROL_KEYS
from adv_detect.serving.bundle import score_images
from adv_detect.sharding import ShardStore
from adv_detect.tracking.config import tracking_config

PIPELINES = (
    "target_training",
    "twin_training",
    "feature_extraction",
    "representatives",
    "adversarial_generation",
    "detector_training",
    "evaluation",
)
SHARDED = (
    "04_feature/features",
    "03_primary/adversarials",
    "05_model_input/activations",
    "05_model_input/control_activations",
    "06_models/detectors",
    "07_model_output/scores",
)
SHARDS_BEFORE_KILL = 6
LOAD = """
import mlflow, numpy
model = mlflow.pyfunc.load_model("models:/adv-detect-test@champion")
print(model.predict(numpy.zeros((1, 1, 28, 28), dtype="float32")).adversarial_score[0])
"""


def modified(folder: Path) -> dict[str, int]:
    """When each shard and the network were written."""
    files = [file for name in SHARDED for file in (folder / RESULTS / name).rglob("*.safetensors")]
    files.append(folder / "data/test/06_models/network.safetensors")
    return {str(file.relative_to(folder / RESULTS)): file.stat().st_mtime_ns for file in files if file.exists()}


def test_the_command_leaves_table_report_and_registered_model(finished_run):
    reporting = finished_run / "data/test/08_reporting"
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
    champion = client.get_model_version_by_alias("adv-detect-test", "champion")
    assert client.get_run(champion.run_id).info.status == "FINISHED"


def test_every_metric_row_belongs_to_a_detector_or_control(finished_run):
    table = pd.read_csv(finished_run / "data/test/08_reporting/detection_metrics.csv")
    detectors = ShardStore(str(finished_run / "data/test/06_models/detectors"))

    assert set(table["detector"]) == {*detectors, *CONTROL_KEYS}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_pipeline_runs_alone_from_what_lies_on_disk_and_makes_nothing_twice(finished_run, pipeline):
    before = modified(finished_run)
    records = pd.read_parquet(finished_run / "data/test/03_primary/attack_records.parquet")
    table = pd.read_csv(finished_run / "data/test/08_reporting/detection_metrics.csv")

    with session(finished_run) as one:
        one.run(pipeline_names=[pipeline])

    assert modified(finished_run) == before
    again = pd.read_parquet(finished_run / "data/test/03_primary/attack_records.parquet")
    pd.testing.assert_frame_equal(again, records)
    table_again = pd.read_csv(finished_run / "data/test/08_reporting/detection_metrics.csv")
    pd.testing.assert_frame_equal(table_again, table)


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
def resumed(
    finished_run: Path, project: Path, tmp_path_factory: pytest.TempPathFactory, forked_kedro: tuple[str, ...]
) -> dict[str, object]:
    """A project whose attacks were killed midway and then run again; what lay there in between."""
    folder = new_project(tmp_path_factory.mktemp("resumed"), project)
    take_over(folder, finished_run, *NETWORK, "04_feature/representatives.safetensors")
    process = command(folder, "--pipelines=adversarial_generation", program=forked_kedro)
    store = ShardStore(str(folder / "data/test/03_primary/adversarials"))
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
        pd.read_parquet(folder / "data/test/03_primary/attack_records.parquet")
        for folder in (resumed["folder"], finished_run)
    ]
    stores = [
        ShardStore(str(folder / "data/test/03_primary/adversarials")) for folder in (resumed["folder"], finished_run)
    ]

    pd.testing.assert_frame_equal(*tables)
    assert stores[0].fingerprints() == stores[1].fingerprints()
    assert stores[0].complete
    for key, content in stores[0].items():
        other = stores[1][key]
        assert content.metadata | {"seconds": 0} == other.metadata | {"seconds": 0}
        assert content.tensors.keys() == other.tensors.keys()
        for name, value in content.tensors.items():
            # a process of another number of threads adds in another order
            torch.testing.assert_close(value, other.tensors[name], rtol=1e-4, atol=1e-4, msg=f"{key}: {name}")


def test_no_source_image_of_a_real_run_stands_in_two_splits(finished_run):
    records = pd.read_parquet(finished_run / "data/test/03_primary/attack_records.parquet")

    assert (records.groupby("source_id")["split"].nunique() == 1).all()
    assert set(records["split"]) == {"train", "validation", "test"}


def test_a_changed_attack_remakes_its_own_shards_only(resumed):
    folder = resumed["folder"]
    before = modified(folder)
    records = pd.read_parquet(folder / "data/test/03_primary/attack_records.parquet")

    with session(folder, adversarial_generation={"attacks": {"bim": {"arguments": {"steps": 4}}}}) as one:
        one.run(pipeline_names=["adversarial_generation"])

    after = modified(folder)
    remade = {name for name in before if after[name] != before[name]}
    assert after.keys() == before.keys()
    assert remade == {name for name in before if name.startswith("03_primary/adversarials/bim/")}
    changed = pd.read_parquet(folder / "data/test/03_primary/attack_records.parquet")
    others = [table[table["attack"] != "bim"].reset_index(drop=True) for table in (records, changed)]
    pd.testing.assert_frame_equal(*others)
    assert not changed[changed["attack"] == "bim"].equals(records[records["attack"] == "bim"])


def test_the_notebook_runs_and_its_figures_are_pictures(finished_run, project, monkeypatch):
    notebook = nbformat.read(project / "notebooks/explore_run.ipynb", as_version=4)
    monkeypatch.setenv("ADV_DETECT_PROJECT", str(finished_run))
    monkeypatch.setenv("ADV_DETECT_ENV", "test")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    NotebookClient(
        notebook,
        timeout=int(DEADLINE_SECONDS),
        kernel_name="python3",
        resources={"metadata": {"path": str(project / "notebooks")}},
    ).execute()

    drawn = [cell for cell in notebook.cells if cell.cell_type == "code" and "Figure(" in cell.source]
    assert len(drawn) == 2
    for cell in drawn:
        [png] = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
        with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
            assert picture.width > 500
            assert len(picture.convert("L").getcolors(256)) > 20  # not an empty frame


def test_a_wrong_value_ends_the_command_with_a_message(finished_run, forked_kedro):
    wrong = "--params=adversarial_generation.attacks.bim.attack=nonsense"
    process = command(finished_run, wrong, program=forked_kedro)
    output, _ = process.communicate(timeout=DEADLINE_SECONDS)

    assert process.returncode == 1
    ending = " ".join(output.split())[-700:]
    assert "attacks.bim.attack: expected one of [<dotted path of a foolbox attack class>, bim, cw" in ending
    assert "got 'nonsense'" in ending


def test_the_further_pipelines_run_from_what_the_main_job_left(finished_run, tmp_path, forked_kedro):
    folder = tmp_path / "further"
    shutil.copytree(finished_run, folder)
    process = command(folder, "--pipelines=adaptive_attack,face_recognition", program=forked_kedro)
    output, _ = process.communicate(timeout=DEADLINE_SECONDS)

    assert process.returncode == 0, output[-3000:]
    reporting = folder / "data/test/08_reporting"
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
    cheaper = {"attacks": dict.fromkeys(("cw", "cw-confident", "deepfool"))}
    with session(folder, runtime={"seed": 1}, adversarial_generation=cheaper) as one:
        one.run(pipeline_names=["adversarial_generation"])

    with (
        pytest.raises(DataError, match=r"activations: they belong to other images .*--pipeline=detector_training"),
        session(folder, runtime={"seed": 1}) as one,
    ):
        one.run(pipeline_names=["evaluation"])


def score_in_a_clean_process(uri: str, folder: Path) -> float:
    """Score of a black image by the champion, in a process that knows the address of the store and nothing else."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-I", "-c", LOAD]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return float(done.stdout.splitlines()[-1])


def score_by_the_stored_champion(folder: Path) -> float:
    with session(folder) as one:
        bundle = one.load_context().catalog.load("champion_model")
    return float(score_images(bundle, np.zeros((1, 1, 28, 28), dtype=np.float32)).adversarial_score[0])


def texts_with(database: Path, text: str) -> list[str]:
    """Columns of a database in which a text stands."""
    with closing(sqlite3.connect(database)) as one:
        tables = [name for (name,) in one.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = [(table, row[1]) for table in tables for row in one.execute(f"PRAGMA table_info('{table}')")]
        pattern = (f"%{text}/%",)
        found = "SELECT count(*) FROM '{}' WHERE CAST(\"{}\" AS TEXT) LIKE ?"
        return [f"{t}.{c}" for t, c in columns if one.execute(found.format(t, c), pattern).fetchone()[0]]


@pytest.fixture(scope="module")
def moved(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A project with an environment more that was copied, then moved: where it was, where it is."""
    before = tmp_path_factory.mktemp("moved") / "before"
    shutil.copytree(finished_run, before)
    shutil.copytree(before / "conf/test", before / "conf/mine")
    with session(before) as one:
        one.load_context()
    after = before.parent / "moved elsewhere"
    before.rename(after)
    return before, after


def test_a_project_that_was_moved_finds_its_models(finished_run, moved):
    before, after = moved
    assert {"runs.artifact_uri", "model_versions.storage_location"} <= set(texts_with(after / "mlflow.db", str(before)))
    assert not texts_with(after / "mlflow.db", str(finished_run)), (
        "a copy still points at the project it was copied from"
    )

    expected = score_by_the_stored_champion(after)

    assert not texts_with(after / "mlflow.db", str(before))
    assert not texts_with(after / "mlflow.db", before.as_uri())
    assert score_in_a_clean_process(f"sqlite:///{after}/mlflow.db", after.parent) == pytest.approx(expected, abs=1e-6)


def test_another_environment_touches_nothing_of_the_first(moved):
    folder = moved[1]
    files = {path: path.stat().st_mtime_ns for path in (folder / RESULTS).rglob("*") if path.is_file()}

    with session(folder, environment="mine", target_training={"epochs": 1, "min_accuracy": 0.0}) as one:
        one.run(pipeline_names=["target_training"])

    assert {path: path.stat().st_mtime_ns for path in (folder / RESULTS).rglob("*") if path.is_file()} == files
    networks = [(folder / name / NETWORK[0]).read_bytes() for name in (RESULTS, "data/mine")]
    assert networks[0] != networks[1]
    assert sorted(path.name for path in (folder / "data").iterdir()) == ["mine", "test"]
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("adv-detect-mine").experiment_id])
    kept = folder / "mlruns" / run.info.run_id / "artifacts"
    assert run.info.artifact_uri == kept.as_uri()
    assert (kept / "target_description.json").is_file()


def test_one_run_at_a_time_writes_and_who_reads_is_not_asked(finished_run):
    before = modified(finished_run)
    with RunLock(finished_run / RESULTS):
        with session(finished_run) as one:
            assert len(one.load_context().catalog.load("detection_metrics"))
        with (
            pytest.raises(BusyError, match=rf"expected no other run .* process {os.getpid()} on "),
            session(finished_run) as one,
        ):
            one.run(pipeline_names=["representatives"])

    assert modified(finished_run) == before
    with pytest.raises(ConfigurationError), session(finished_run, runtime={"device": "nowhere"}) as one:
        one.run(pipeline_names=["representatives"])
    RunLock(finished_run / RESULTS).acquire().release()


def test_an_environment_does_not_take_the_name_of_another(finished_run):
    message = r"serving.name: .* got 'adv-detect-mnist' for 'test', .* 'mnist'"
    name = {"name": "adv-detect-mnist"}
    with pytest.raises(ConfigurationError, match=message), session(finished_run, serving=name) as one:
        one.run(pipeline_names=["detector_training"])


def test_rates_that_the_scores_were_not_held_against_are_refused(finished_run):
    message = r"evaluation.fprs: the scores on disk .*'1%', '3%', '5%', '10%'.*--pipeline=evaluation"
    rates = {"fprs": [0.01, 0.05]}
    with pytest.raises(ConfigurationError, match=message), session(finished_run, evaluation=rates) as one:
        one.run(pipeline_names=["evaluation"], node_names=["measure_detection"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A real MLflow server on this machine: its address and the folder in which it keeps artifacts."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    command += [f"--backend-store-uri=sqlite:///{folder}/server.db", f"--artifacts-destination={folder}/kept"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # or five processes more start with it
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not answers(f"{address}/health"):
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield address, folder / "kept"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def test_a_run_goes_to_the_server_that_the_user_exported(finished_run, server, monkeypatch, tmp_path):
    address, kept = server
    client = mlflow.MlflowClient(address)
    foreign = client.create_experiment("kept-here", artifact_location=(tmp_path / "here").as_uri())
    local = {path: path.stat().st_mtime_ns for path in (finished_run / "mlruns").rglob("*")}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)

    with session(finished_run) as one:
        one.run(pipeline_names=["target_training", "detector_training"])

    (run,) = client.search_runs([client.get_experiment_by_name("adv-detect-test").experiment_id])
    champion = client.get_model_version_by_alias("adv-detect-test", "champion")
    assert run.info.status == "FINISHED"
    assert champion.run_id == run.info.run_id
    assert list(kept.rglob(f"{run.info.run_id}/artifacts/target_description.json"))
    assert list(kept.rglob("artifacts/champion/network.safetensors"))
    assert {path: path.stat().st_mtime_ns for path in (finished_run / "mlruns").rglob("*")} == local
    expected = score_by_the_stored_champion(finished_run)
    assert score_in_a_clean_process(address, tmp_path) == pytest.approx(expected, abs=1e-6)

    config = tracking_config({"tracking": {"experiment": {"name": "kept-here"}}}, finished_run)
    with pytest.raises(TrackingError, match=r"'kept-here' on .*: expected artifacts where the server keeps them"):
        config.connect()
    assert client.get_experiment(foreign).name == "kept-here"
