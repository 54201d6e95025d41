from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from adv_detect.serving.bundle import score_images

START_SECONDS = 120
ANSWER_SECONDS = 30
STOP_SECONDS = 10

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(address: str, payload: object) -> tuple[int, dict]:
    body = json.dumps(payload).encode()
    request = urllib.request.Request(address, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as exc:
        return exc.code, json.load(exc)


def await_server(server: subprocess.Popen, base: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            pytest.fail(f"the server ended with {server.returncode}: {log.read_text()}")
        with suppress(OSError), urllib.request.urlopen(f"{base}/ping", timeout=1):
            return
        time.sleep(0.2)
    pytest.fail(f"no answer within {START_SECONDS} s: {log.read_text()}")


@pytest.fixture(scope="module")
def served(registered, tmp_path_factory):
    """Address of the registered model behind `mlflow models serve`, on this machine only."""
    folder = tmp_path_factory.mktemp("server")
    log, base = folder / "log.txt", f"http://127.0.0.1:{(port := free_port())}"
    scripts = str(Path(sys.executable).parent)
    environment = os.environ | {"MLFLOW_TRACKING_URI": registered.uri, "OMP_NUM_THREADS": "1"}
    environment |= {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [f"{scripts}/mlflow", "models", "serve", "-m", "models:/adv-detect@champion", "--env-manager", "local"]
    with log.open("w") as sink:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "-p", str(port)],
            cwd=folder,
            env=environment,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        await_server(server, base, log)
        yield f"{base}/invocations"
    finally:
        stop(server)


def stop(server: subprocess.Popen) -> None:
    """End the server and the processes that it started: they share its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(STOP_SECONDS)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).random((3, 1, 28, 28), dtype=np.float32)


@pytest.mark.parametrize("fpr", [None, 0.01])
def test_it_answers_a_request(served, bundle, images, fpr):
    asked = {"inputs": images.tolist()} | ({} if fpr is None else {"params": {"fpr": fpr}})
    status, answer = ask(served, asked)
    expected = score_images(bundle, images, fpr=fpr).to_dict("records")
    assert status == 200
    for got, wanted in zip(answer["predictions"], expected, strict=True):
        assert got["predicted_class"] == wanted["predicted_class"]
        assert got["predicted_index"] == wanted["predicted_index"]
        assert got["adversarial_score"] == pytest.approx(wanted["adversarial_score"], abs=1e-6)
        assert got["threshold"] == wanted["threshold"]
        assert got["is_adversarial"] == wanted["is_adversarial"]


def test_the_example_that_comes_with_the_model_is_accepted(served, registered):
    import mlflow

    client = mlflow.MlflowClient(registered.uri)
    made = client.get_model_version_by_alias("adv-detect", "champion")
    folder = client.get_model_version_download_uri("adv-detect", made.version).removeprefix("file://")
    status, answer = ask(served, json.loads(Path(folder, "serving_input_example.json").read_text()))
    assert status == 200
    assert len(answer["predictions"]) == 2


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"inputs": [[[0.0] * 28] * 28]}, "(-1, 1, 28, 28)"),
        ({"inputs": [[[[255.0] * 28] * 28]]}, "expected pixels in [0, 1], got [255, 255]; divide 8-bit pixels by 255"),
        ({"inputs": [[[[0.0] * 28] * 28]], "params": {"fpr": 0.5}}, "fpr: expected one of [0.01, 0.03, 0.05, 0.1]"),
        ({"inputs": [[[[0.0] * 28] * 28]], "params": {"fpr": "low"}}, "fpr"),
        ({"pixels": 1}, "inputs"),
    ],
)
def test_a_wrong_request_is_refused_with_a_reason(served, payload, message):
    status, answer = ask(served, payload)
    assert status == 400
    assert message in answer["message"]
