"""Load on the registered model behind `mlflow models serve`: rate, latency, memory, whether all scores are right."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch

from adv_detect.algorithms.detectors import StoredDetector, TrajectoryDetector, random_readout, score_activations
from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.datasets.champion import ChampionModelDataset
from adv_detect.params import DetectorParams
from adv_detect.serving.bundle import ScoringBundle, score_images
from benchmarks.measure import Row, Settings, peak_mib
from benchmarks.subjects import digit_representatives, digits

GROUP = "serving"
MODEL = "models:/adv-detect@champion"
CLIENTS, REQUESTS = 8, 200
SIZES = (1, 16)
DIFFERENT = 25
"""Requests of different images that a client sends in turn."""
TOLERANCE = 1e-6
FPRS = (0.01, 0.05)
START_SECONDS, ANSWER_SECONDS, STOP_SECONDS = 120, 90, 10
HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Served:
    """A running server.

    Attributes:
        address: Of the endpoint for scores.
        process: Id of the process that was started; the server proper may be its child.
    """

    address: str
    process: int

    @property
    def peak_mib(self) -> float:
        """Largest peak of memory among the process and its children; needs ``/proc``."""
        children = Path("/proc", str(self.process), "task", str(self.process), "children")
        others = children.read_text(encoding="utf-8").split() if children.is_file() else []
        return max(peak_mib(one) for one in (self.process, *map(int, others)))


@dataclass(frozen=True)
class Answer:
    """What came back for one request, and after how many seconds."""

    status: int
    content: Mapping[str, Any]
    seconds: float

    @property
    def scores(self) -> np.ndarray:
        """Scores of the images; empty where there are none."""
        return np.array([row["adversarial_score"] for row in self.content.get("predictions", ())])


@dataclass(frozen=True)
class Outcome:
    """Answers under load, by client and request, and the seconds of all of them."""

    answers: Sequence[Sequence[Answer]]
    seconds: float

    def percentile(self, rank: float) -> float:
        return float(np.percentile([one.seconds for client in self.answers for one in client], rank))

    def compare(self, expected: Sequence[Sequence[np.ndarray]]) -> tuple[int, float]:
        """Count answers that are no scores or are off by more than ``TOLERANCE``; the largest difference of the rest.

        Args:
            expected: Scores by client and kind of request; a client sends its kinds in turn.
        """
        wrong, largest = 0, 0.0
        for answers, wanted in zip(self.answers, expected, strict=True):
            for number, answer in enumerate(answers):
                right = wanted[number % len(wanted)]
                fits = answer.status == 200 and answer.scores.shape == right.shape
                off = float(np.abs(answer.scores - right).max()) if fits else np.inf
                wrong += not off <= TOLERANCE  # NaN is wrong too
                largest = max(largest, off if fits else 0.0)
        return wrong, largest


def measure_serving(settings: Settings) -> Iterator[Row]:
    """`small` with an LSTM on cosine distances; clients on this machine that send the next request at once."""
    bundle, images = champion(settings), digits(settings)[1].cpu().numpy()
    clients, requests = CLIENTS, settings.size(REQUESTS, 5)
    with tempfile.TemporaryDirectory() as name, serve(register(bundle, Path(name)), Path(name)) as served:
        for size in SIZES:
            sent = pick(images, clients=clients, size=size)
            expected = [[scores_alone(bundle, one) for one in client] for client in sent]
            outcomes = [load(served.address, sent, requests=requests) for _ in range(settings.rounds)]
            yield from _rows(size, clients * requests, outcomes, expected, served)


def _rows(
    size: int, count: int, outcomes: Sequence[Outcome], expected: Sequence[Sequence[np.ndarray]], served: Served
) -> Iterator[Row]:
    found = [one.compare(expected) for one in outcomes]
    what = f"{CLIENTS} clients x {count // CLIENTS} requests of {size} {'image' if size == 1 else 'images'}"
    last = outcomes[-1]
    p50, p95 = (1000 * float(np.median([one.percentile(rank) for one in outcomes])) for rank in (50, 95))
    note = (
        f"median of the rounds: half of the answers within {p50:.0f} ms, 95 % within {p95:.0f} ms; peak memory of the "
        f"server {served.peak_mib:,.0f} MiB; server and clients share the cores"
    )
    outcome = {"p50_ms": p50, "p95_ms": p95, "peak_mib": served.peak_mib}
    rates = tuple(count / one.seconds for one in outcomes)
    yield Row(GROUP, f"{what}: rate", rates, note, unit="requests a second", outcome=outcome)
    note = f"right: the score of the same images in one thread, to {TOLERANCE:g}; largest difference "
    note += f"{max(difference for _, difference in found):.1e}; {len(last.answers) * len(last.answers[0]):,} a round"
    wrong = tuple(float(one) for one, _ in found)
    yield Row(GROUP, f"{what}: answers that are not right", wrong, note, goal=0, at_most=True, unit="answers")


def pick(images: np.ndarray, *, clients: int, size: int, different: int = DIFFERENT) -> list[list[np.ndarray]]:
    """Choose the images of each client's requests, in order, from the start again where they run out."""
    index = np.arange(clients * different * size) % len(images)
    return [list(client) for client in images[index.reshape(clients, different, size)]]


def scores_alone(bundle: ScoringBundle, images: np.ndarray) -> np.ndarray:
    """Scores of images, each in a batch of its own."""
    model = bundle.model().eval()
    alone = [score_images(bundle, images[row : row + 1], model=model) for row in range(len(images))]
    return np.array([table["adversarial_score"].iloc[0] for table in alone])


def as_numbers(images: np.ndarray) -> bytes:
    """Write images as the body of a request."""
    return json.dumps({"inputs": images.tolist()}).encode()


def load(
    address: str,
    sent: Sequence[Sequence[np.ndarray]],
    *,
    requests: int,
    body: Callable[[np.ndarray], bytes] = as_numbers,
) -> Outcome:
    """Send requests from several clients at once, each over one connection.

    Args:
        address: Of the endpoint for scores.
        sent: Images by client and kind of request.
        requests: Requests a client.
        body: Writes the images of a request.

    Returns:
        All answers.
    """
    bodies = [[body(one) for one in client] for client in sent]
    started = time.perf_counter()
    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda client: _ask_all(address, client, requests), bodies))
    return Outcome(answers, time.perf_counter() - started)


def _ask_all(address: str, bodies: Sequence[bytes], requests: int) -> list[Answer]:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_SECONDS)
    try:
        return [_ask(connection, parts.path, bodies[number % len(bodies)]) for number in range(requests)]
    finally:
        connection.close()


def _ask(connection: http.client.HTTPConnection, path: str, body: bytes) -> Answer:
    started = time.perf_counter()
    connection.request("POST", path, body, HEADERS)
    response = connection.getresponse()
    text = response.read()
    spent = time.perf_counter() - started
    return Answer(response.status, json.loads(text), spent)


@contextmanager
def serve(
    tracking: str, folder: Path, *, command: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """Serve the registered champion on this machine only, until the context is left.

    Args:
        tracking: Address of the tracking database.
        folder: Working directory, for the log too.
        command: What starts a server; empty means ``mlflow models serve``.
        environment: Further variables of the server.

    Yields:
        The server, once it answers.

    Raises:
        RuntimeError: It ended, or does not answer in time.
    """
    scripts = Path(sys.executable).parent
    command = command or [str(scripts / "mlflow"), "models", "serve", "--env-manager", "local"]
    variables = os.environ | {"MLFLOW_TRACKING_URI": tracking, "MLFLOW_DISABLE_TELEMETRY": "true"}
    variables |= {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", **(environment or {})}
    log, port = folder / "server.log", _free_port()
    with log.open("w", encoding="utf-8") as sink:
        process = subprocess.Popen(
            [*command, "-m", MODEL, "--host", "127.0.0.1", "-p", str(port)],
            cwd=folder, env=variables, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        _await(process, port, log)
        yield Served(f"http://127.0.0.1:{port}/invocations", process.pid)
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}: {log.read_text(encoding='utf-8')}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/ping")
            if connection.getresponse().status == 200:
                return
        connection.close()
        time.sleep(0.1)
    raise RuntimeError(f"no answer within {START_SECONDS} s: {log.read_text(encoding='utf-8')}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and the processes that it started: they share its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


def champion(settings: Settings) -> ScoringBundle:
    """`small` with an untrained detector, which costs as much as a trained one."""
    network, images, _ = digits(settings)
    representatives = digit_representatives(settings)
    params = DetectorParams(kind="lstm", representative="medoid", distance="cosine")
    readout = random_readout(params, len(network.spec.layers), len(network.spec.class_names), seed=0)
    detector = TrajectoryDetector(representatives, params, readout).eval().requires_grad_(False)
    with torch.no_grad():
        clean = score_activations(detector, network_activations(network, images[:200], network.spec.layers).to("cpu"))
    stored = StoredDetector("untrained", detector, params, {"params": params.model_dump(mode="json")}, clean)
    return ScoringBundle(network, representatives, stored, {"name": "adv-detect", "fpr": FPRS[-1], "fprs": list(FPRS)})


def register(bundle: ScoringBundle, folder: Path) -> str:
    """Register a bundle in a database of its own; the address of that."""
    import mlflow

    uri, before = f"sqlite:///{folder}/mlflow.db", mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        experiment = mlflow.create_experiment("serving", artifact_location=str(folder / "artifacts"))
        with mlflow.start_run(experiment_id=experiment):
            ChampionModelDataset(filepath=str(folder / "champion")).save(bundle)
    finally:
        mlflow.set_tracking_uri(before)
    return uri
