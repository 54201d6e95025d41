from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from benchmarks.serving import load, pick, scores_alone
from PIL import Image

from adv_detect.serving.bundle import score_images

ANSWER_SECONDS = 30
AT_ONCE_SECONDS = 5

pytestmark = pytest.mark.slow


def ask(served, payload: object) -> tuple[int, dict]:
    """Answer to a payload, or to a body as it stands: bytes, or parts of them in chunks of untold length."""
    address = served.address
    body = payload if isinstance(payload, bytes | Iterator) else json.dumps(payload).encode()
    request = urllib.request.Request(address, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as exc:
        return exc.code, json.load(exc)


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


CURL = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def test_the_lines_of_the_documentation_are_answered(served, project, tmp_path):
    """The blocks of docs/serving.md that use curl, as they stand but for the port and the picture."""
    page = (project / "docs" / "serving.md").read_text(encoding="utf-8")
    blocks = [one for one in CURL.findall(page) if "curl" in one and "pairs" not in one]
    generator = np.random.default_rng(9)
    for name in ("a.jpg", "b.png"):
        Image.fromarray(generator.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(tmp_path / name)
    port = str(urlsplit(served.address).port)
    answers = []
    for block in blocks:
        script = "set -e\n" + block.replace("5001", port).replace("curl ", "curl --silent --show-error --fail ")
        path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        command, environment = ["bash", "-c", script], os.environ | path
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        answers += re.findall(r'\{"predictions.*?\}\]\}', ran.stdout)
    rows = [json.loads(one)["predictions"] for one in answers]
    assert [len(one) for one in rows] == [2, 2, 2]
    assert all(one["model_version"] == "adv-detect/1" and 0 < one["p_value"] <= 1 for part in rows for one in part)
    assert rows[1][0]["early_class"] is None or isinstance(rows[1][0]["early_class"], str)
    assert rows[1][0]["adversarial_score"] == pytest.approx(rows[2][0]["adversarial_score"], abs=1e-6)


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
        ({"inputs": [[[0.0] * 28] * 28]}, "inputs: expected images of shape (N, 1, 28, 28), got (1, 28, 28)"),
        ({"inputs": [[[[0.0] * 28] * 27 + [[0.0] * 27]]]}, "got a list of 27 at inputs[0][0][27], where a list of 28"),
        ({"inputs": [[[["0.5"] * 28] * 28]]}, "expected numbers as pixels, got a string at inputs[0][0][0][0]"),
        ({"inputs": [[[[255.0] * 28] * 28]]}, "expected pixels in [0, 1], got [255, 255]; divide 8-bit pixels by 255"),
        ({"inputs": [[[[float("nan")] * 28] * 28]]}, "expected finite pixels, got NaN or infinity"),
        ({"inputs": []}, "inputs: expected at least one image, got an empty list"),
        (
            {"inputs": [[[[0.0] * 28] * 28]], "params": {"fpr": 1.5}},
            "fpr: expected a rate such as 0.05, got one above 1",
        ),
        (
            {"inputs": [[[[0.0] * 28] * 28]], "params": {"fpr": "low"}},
            "fpr: expected a rate such as 0.05, got a string",
        ),
        ({"pixels": 1}, "expected the key 'inputs'"),
        (b"{'inputs': 1}", "expected valid JSON of the form"),
    ],
)
def test_a_wrong_request_is_refused_with_one_sentence(served, payload, message):
    status, answer = ask(served, payload)
    assert status == 400
    assert message in answer["message"]
    assert set(answer) == {"error_code", "message"}
    assert len(answer["message"]) < 300


def test_too_large_a_request_is_refused_at_once_and_the_next_one_is_answered(served, bundle, images):
    """2,000 images of 3 x 64 x 64 as JSON, here as spaces, told or in chunks; more images than are taken."""
    size, limit = 490_000_000, 32 * 2**20
    parts = (b" " * 2**20 for _ in range(size // 2**20))
    image = [[[0.0] * 28] * 28]
    refused = [
        (b" " * size, f"expected a body of at most {limit:,} bytes, got {size:,}; send fewer images a request"),
        (parts, f"expected a body of at most {limit:,} bytes, got more; send fewer images a request"),
        (
            {"inputs": [image] * 300},
            "expected at most 256 images a request, got numbers enough for 300; send them in several requests",
        ),
    ]
    before = served.peak_mib
    for payload, message in refused:
        started = time.monotonic()
        status, answer = ask(served, payload)
        assert status == 413
        assert message in answer["message"]
        assert time.monotonic() - started < AT_ONCE_SECONDS
        status, answer = ask(served, {"inputs": images.tolist()})
        assert status == 200
        assert len(answer["predictions"]) == len(images)
    assert served.peak_mib - before < 4 * limit / 2**20


def test_clients_at_once_get_the_scores_of_one_alone(served, bundle):
    images = np.random.default_rng(6).random((200, 1, 28, 28), dtype=np.float32)
    for size in (1, 16):
        sent = pick(images, clients=2, size=size, different=5)
        expected = [[scores_alone(bundle, one) for one in client] for client in sent]
        wrong, _ = load(served.address, sent, requests=40).compare(expected)
        assert wrong == 0


def test_the_limits_in_force_are_told(served):
    with urllib.request.urlopen(served.address.replace("invocations", "limits"), timeout=ANSWER_SECONDS) as answer:
        assert json.load(answer)["max_images"] == 256


@pytest.mark.parametrize("path", ["ping", "health", "version"])
def test_the_other_endpoints_are_those_of_mlflow(served, path):
    with urllib.request.urlopen(served.address.replace("invocations", path), timeout=ANSWER_SECONDS) as answer:
        assert answer.status == 200
        assert path != "version" or answer.read().decode().count(".") == 2
