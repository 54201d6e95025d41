from __future__ import annotations

import json
import sys
from types import ModuleType

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks.serving import MODEL, scores_alone
from tests.serving.servers import get, in_thread, post

from adv_detect.serving.__main__ import main
from adv_detect.serving.log import LoggedBundle, ScoringLog
from adv_detect.serving.server import MLFLOW_SERVER, change_loading_server, scoring_app


def test_no_server_is_changed_where_none_loads_the_model(monkeypatch):
    monkeypatch.delitem(sys.modules, MLFLOW_SERVER, raising=False)
    assert not change_loading_server(lambda app: app)


def test_a_loading_server_serves_what_is_made_of_its_application(monkeypatch):
    module = ModuleType(MLFLOW_SERVER)
    monkeypatch.setitem(sys.modules, MLFLOW_SERVER, module)
    made = []
    assert change_loading_server(lambda app: made.append(app) or f"guarded {app}")
    vars(module)["app"] = "theirs"  # as `app = ...` at the end of the module does
    assert module.app == module.app == "guarded theirs"
    assert made == ["theirs"]
    assert not change_loading_server(lambda app: app)  # a model that is loaded later, while it serves


def test_the_command_of_our_own_serves_the_same(registered, bundle, tracking, monkeypatch):
    served = {}
    monkeypatch.setattr(sys, "path", [*sys.path])  # MLflow puts the model's own code in front
    monkeypatch.setattr("uvicorn.run", lambda app, **given: served.update(given, app=app))
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "60")
    assert main(["--port", "5055", "--timeout", "7"]) == 0
    assert (served["host"], served["port"]) == ("127.0.0.1", 5055)
    images = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    with in_thread(served["app"]) as address:
        status, answer, _ = post(address, json.dumps({"inputs": images.tolist()}))
        assert status == 200
        scores = [row["adversarial_score"] for row in answer["predictions"]]
        np.testing.assert_allclose(scores, scores_alone(bundle, images), atol=1e-6)
        assert get(address, "/limits")[1]["timeout"] == 7
        assert get(address, "/version")[1] == mlflow.__version__
        assert post(address, b'{"inputs": []}')[0] == 400
        assert get(address, "/invocations")[0] == 405


@pytest.mark.parametrize(
    ("variable", "model", "sentence"),
    [
        ("many", MODEL, "ADV_DETECT_MAX_IMAGES: expected a whole number of at least 1, got 'many'; set or unset it\n"),
        ("5", "models:/adv-detect@nobody", "nobody"),
    ],
)
def test_the_command_ends_with_a_sentence(registered, tracking, monkeypatch, capsys, variable, model, sentence):
    monkeypatch.setenv("ADV_DETECT_MAX_IMAGES", variable)
    assert main(["-m", model]) == 2
    assert sentence in capsys.readouterr().err


def test_the_limits_of_the_model_hold(bundle, monkeypatch):
    monkeypatch.setitem(bundle.metadata, "max_images", 2)
    with in_thread(scoring_app(bundle, bundle.model().eval(), other=lambda *_: None)) as address:
        assert get(address, "/limits")[1]["max_images"] == 2
        status, answer, _ = post(address, json.dumps({"inputs": [[[[0.5] * 28] * 28]] * 3}))
    assert status == 413
    assert "expected at most 2 images a request, got numbers enough for 3" in answer["message"]


def test_what_the_log_holds_is_written_when_the_server_ends(bundle, tmp_path):
    logged = LoggedBundle(bundle, ScoringLog(tmp_path, bundle))
    with in_thread(scoring_app(logged, logged.model().eval(), other=lambda *_: None)) as address:
        status, _, _ = post(address, json.dumps({"inputs": [[[[0.5] * 28] * 28]] * 3}))
        assert not list(tmp_path.iterdir())

    assert status == 200
    [file] = tmp_path.glob("scores-*.parquet")
    assert len(pd.read_parquet(file)) == 3


@pytest.mark.parametrize(("variable", "cores", "threads"), [(None, 8, 2), (None, 2, 1), ("3", 8, None)])
def test_predictions_share_the_cores(bundle, monkeypatch, variable, cores, threads):
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr("adv_detect.serving.server.available_cores", lambda: cores)
    monkeypatch.setattr("adv_detect.serving.limits.available_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    scoring_app(bundle, bundle.model().eval(), other=lambda *_: None)
    assert chosen == ([] if threads is None else [threads])
