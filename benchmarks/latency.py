"""Latency and throughput of the served model: clients, tensors against JPEG, views or none, against no server."""

from __future__ import annotations

import base64
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from adv_detect.algorithms.detectors import StoredDetector, build_detector, score_activations
from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.algorithms.views import Views
from adv_detect.params import DetectorParams, ImageChangeParams
from adv_detect.serving.bundle import ScoringBundle
from adv_detect.serving.encoded import decode_pictures
from benchmarks.measure import Row, Settings
from benchmarks.serving import Outcome, Served, as_numbers, champion, load, pick, register, scores_alone, serve
from benchmarks.subjects import digits

GROUP = "latency"
CLIENTS = (1, 2, 4, 8)
SIZE, REQUESTS, DIFFERENT = 16, 40, 10
QUALITY = 90
SHARE = 0.7
"""Wanted share of the throughput without a server, pictures as JPEG, all clients at once."""
VIEWS = {
    "jpeg-75": ImageChangeParams(kind="jpeg", arguments={"quality": 75}),
    "shift-right": ImageChangeParams(kind="shift", arguments={"dx": 1}),
}
Form = Callable[[np.ndarray], bytes]


def measure_latency(settings: Settings) -> Iterator[Row]:
    """A row for each number of clients, form of the pictures, and detector with and without views."""
    plain, images = champion(settings), digits(settings)[1].cpu().numpy()
    for what, bundle in (("without views", plain), ("with two views", _with_views(plain, images, settings))):
        with tempfile.TemporaryDirectory() as name, serve(register(bundle, Path(name)), Path(name)) as served:
            for form, body in (("tensors", as_numbers), ("JPEG", as_jpeg)):
                yield from _rows(f"{form}, {what}", body, bundle, images, served, settings)


def _rows(
    what: str, body: Form, bundle: ScoringBundle, images: np.ndarray, served: Served, settings: Settings
) -> Iterator[Row]:
    requests = settings.size(REQUESTS, 3)
    alone = [_in_process(bundle, body, images, settings) for _ in range(settings.rounds)]
    for clients in CLIENTS:
        sent = pick(images, clients=clients, size=SIZE, different=settings.size(DIFFERENT, 1))
        expected = [[scores_alone(bundle, _seen(bundle, body, one)) for one in client] for client in sent]
        outcomes = [load(served.address, sent, requests=requests, body=body) for _ in range(settings.rounds)]
        yield _row(f"{clients} clients, {what}", clients * requests, outcomes, expected)
        if clients == CLIENTS[-1] and body is as_jpeg:
            rates = [SIZE * clients * requests / one.seconds for one in outcomes]
            shares = tuple(rate / own for rate, own in zip(rates, alone, strict=True))
            note = f"pictures a second in one process without a server: {np.median(alone):.0f}"
            yield Row(GROUP, f"{what}: throughput against no server", shares, note, goal=SHARE)


def _row(what: str, count: int, outcomes: Sequence[Outcome], expected: Sequence[Sequence[np.ndarray]]) -> Row:
    p50, p95 = (1000 * float(np.median([one.percentile(rank) for one in outcomes])) for rank in (50, 95))
    wrong = sum(one.compare(expected)[0] for one in outcomes)
    note = f"p50 {p50:.0f} ms, p95 {p95:.0f} ms; {SIZE} pictures a request, {count} requests a round"
    rates = tuple(SIZE * count / one.seconds for one in outcomes)
    outcome = {"p50_ms": p50, "p95_ms": p95, "wrong": float(wrong)}
    worse = f"{wrong} answers are not right" if wrong else ""
    return Row(GROUP, what, rates, note, unit="pictures a second", outcome=outcome, worse=worse)


def as_jpeg(images: np.ndarray) -> bytes:
    """Write images ``(n, 1, H, W)`` in [0, 1] as JPEG in base64."""
    texts = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray((image[0] * 255).round().astype(np.uint8)).save(buffer, "JPEG", quality=QUALITY)
        texts.append(base64.b64encode(buffer.getvalue()).decode())
    return json.dumps({"inputs": texts}).encode()


def _seen(bundle: ScoringBundle, body: Form, images: np.ndarray) -> np.ndarray:
    """Images as the server sees them after they were sent."""
    sent = json.loads(body(images))["inputs"]
    if isinstance(sent[0], str):
        return decode_pictures(sent, bundle.network.spec.picture_input)
    return np.asarray(sent, dtype=np.float32)


def _in_process(bundle: ScoringBundle, body: Form, images: np.ndarray, settings: Settings) -> float:
    """Pictures a second where requests of the same form are decoded and scored here, one after the other."""
    model, texts = bundle.model().eval(), [body(one) for one in pick(images, clients=1, size=SIZE)[0]]
    count, started = settings.size(REQUESTS, 3), time.perf_counter()
    for number in range(count):
        sent = json.loads(texts[number % len(texts)])["inputs"]
        is_text = isinstance(sent[0], str)
        pixels = decode_pictures(sent, bundle.network.spec.picture_input) if is_text else np.asarray(sent, np.float32)
        bundle.score(pixels, {}, model=model)
    return SIZE * count / (time.perf_counter() - started)


def _with_views(plain: ScoringBundle, images: np.ndarray, settings: Settings) -> ScoringBundle:
    """The same network behind a detector that compares its answers on two views."""
    network = plain.network
    params = DetectorParams(kind="feature-squeezing", arguments={"views": list(VIEWS)})
    detector = build_detector(params, plain.representatives, seed=0).eval().requires_grad_(False)
    views = Views.build(VIEWS, network.spec.bounds)
    clean = torch.from_numpy(images[: settings.size(200, 50)])
    with torch.no_grad():
        seen = network_activations(network, clean, network.spec.layers, views=views)
        scores = score_activations(detector, seen).double().sort().values
    told = {name: one.model_dump(mode="json") for name, one in VIEWS.items()}
    facts = {"params": params.model_dump(mode="json"), "views": told}
    return replace(plain, stored=StoredDetector("views", detector, params, facts, scores))
