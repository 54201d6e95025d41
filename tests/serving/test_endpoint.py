"""The endpoint behind a real HTTP server in this process, with a scorer that tests hold up, and small limits."""

from __future__ import annotations

import json
import logging
import socket
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from tests.serving.servers import JSON, SOON, get, in_thread, post, until

from adv_detect.errors import DataError
from adv_detect.serving.endpoint import Places, ScoringEndpoint
from adv_detect.serving.limits import Limits, RequestError

SHAPE = (1, 2, 2)
LIMITS = Limits(max_images=8, max_bytes=4000, max_requests=4, predictions=1, timeout=30)
BODY = json.dumps({"inputs": np.zeros((1, *SHAPE)).tolist()}).encode()


class Scorer:
    """Gives each image its mean; the gate, while closed, keeps it in a chunk."""

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self.dropped = self.done = 0

    def __call__(self, images, rates, unwanted):
        self.started.release()
        try:
            while not self.gate.wait(0.01):
                if unwanted():
                    self.dropped += 1
                    raise CancelledError
            self.done += 1
            if images.max() > 9:
                raise DataError("expected pixels in [0, 9], got more; scale them")
            if images.max() > 8:
                raise KeyError("a fault of the server")
            return pd.DataFrame({"adversarial_score": images.mean(axis=(1, 2, 3)), "fpr": rates.get("fpr")})
        finally:
            self.ended.release()


@contextmanager
def running(limits):
    """Address, scorer and endpoint of a server."""
    scorer = Scorer()
    endpoint = ScoringEndpoint(scorer, SHAPE, limits)
    routes = [Route("/invocations", endpoint.answer, methods=["POST"]), Route("/limits", endpoint.tell_limits)]
    try:
        with in_thread(Starlette(routes=routes)) as address:
            yield address, scorer, endpoint
    finally:
        scorer.gate.set()


def ask(address, body=BODY, headers=JSON, **given):
    return post(address, body, headers, **given)


def body_of(value, count=1):
    return json.dumps({"inputs": np.full((count, *SHAPE), value).tolist()}).encode()


@pytest.fixture(scope="module")
def small():
    with running(LIMITS) as server:
        yield server


def test_scores_come_back_by_image(small):
    status, answer, _ = ask(small[0], body_of(0.25, 2))
    assert (status, answer) == (200, {"predictions": [{"adversarial_score": 0.25, "fpr": None}] * 2})


def test_the_limits_are_told(small):
    _, told, _ = get(small[0], "/limits")
    assert Limits(**told) == LIMITS


@pytest.mark.parametrize(
    ("body", "headers", "status", "sentence"),
    [
        (b"{", JSON, 400, "expected valid JSON of the form"),
        (body_of(10), JSON, 400, "expected pixels in [0, 9], got more; scale them"),
        (body_of(9), JSON, 500, "the server failed (KeyError); its log says where"),
        (body_of(0, 9), JSON, 413, "expected at most 8 images a request, got 9; send them in several requests"),
        (BODY, {}, 415, "expected a body of content type application/json, in UTF-8, not packed, got none"),
        (BODY, {"Content-Type": "text/csv"}, 415, "got text/csv"),
        (BODY, {"Content-Type": "application/json; charset=latin-1"}, 415, "got application/json, charset=latin-1"),
        (BODY, JSON | {"Content-Encoding": "gzip"}, 415, "got application/json, gzip"),
        (b" " * 4001, JSON, 413, "expected a body of at most 4,000 bytes, got 4,001; send fewer images a request"),
        (b" " * 30_000_000, JSON, 413, "expected a body of at most 4,000 bytes, got 30,000,000"),
    ],
)
def test_a_refusal_is_one_sentence(small, body, headers, status, sentence, caplog):
    caplog.set_level(logging.CRITICAL, "adv_detect")
    came, answer, _ = ask(small[0], body, headers)
    assert came == status
    assert sentence in answer["message"]
    assert set(answer) == {"error_code", "message"}
    assert len(answer["message"]) < 300
    assert "\n" not in answer["message"]
    assert ask(small[0])[0] == 200


@pytest.mark.parametrize("kind", ["application/json; charset=UTF-8", 'Application/JSON;charset="utf-8"'])
def test_content_types_that_are_taken(small, kind):
    assert ask(small[0], headers={"Content-Type": kind})[0] == 200


def test_a_body_in_chunks_of_untold_length_is_cut_off_where_it_is_too_long(small):
    sent = []

    def parts(count):
        for _ in range(count):
            sent.append(1)
            yield b" " * 1000

    assert (
        ask(small[0], iter([BODY[:20], BODY[20:]]), JSON | {"Transfer-Encoding": "chunked"}, encode_chunked=True)[0]
        == 200
    )
    address, _, endpoint = small
    status, answer, _ = ask(address, parts(20), JSON | {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    assert (status, len(sent)) == (413, 20)
    assert "expected a body of at most 4,000 bytes, got more" in answer["message"]
    until(lambda: endpoint._places.held == endpoint._places.requests == 0)


def test_too_large_a_body_is_refused_before_it_is_sent(small):
    """A client that asks first (as curl does) sends nothing at all."""
    with socket.create_connection(small[0], timeout=SOON) as client:
        client.sendall(b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
        client.sendall(b"Content-Length: 490000000\r\nExpect: 100-continue\r\n\r\n")
        answer = client.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"at most 4,000 bytes, got 490,000,000" in answer


def test_a_request_that_times_out_stops_its_work_and_harms_no_other():
    with running(Limits(max_images=8, max_bytes=4000, predictions=1, timeout=0.3)) as (address, scorer, endpoint):
        scorer.gate.clear()
        with ThreadPoolExecutor(3) as pool:
            answers = [pool.submit(ask, address) for _ in range(3)]
            for answer in answers:
                status, content, _ = answer.result(SOON)
                assert status == 504
                assert "expected scores within 0.3 s, and they were not done; send fewer images" in content["message"]
        until(lambda: endpoint._places.requests == 0)
        assert scorer.dropped >= 1  # the others waited, and were not begun in vain unless their time was left
        assert scorer.done == 0
        scorer.gate.set()
        assert [ask(address)[0] for _ in range(3)] == [200] * 3
        assert scorer.done == 3


def test_a_body_that_does_not_end_times_out():
    with running(Limits(max_bytes=4000, timeout=0.3)) as (address, _, endpoint):
        with socket.create_connection(address, timeout=SOON) as client:
            client.sendall(b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
            client.sendall(b"Content-Length: 100\r\n\r\n{}")
            answer = client.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"expected the whole body within 0.3 s, got 2 bytes so far" in answer
        until(lambda: endpoint._places.requests == 0)
        assert ask(address)[0] == 200


@pytest.mark.parametrize("wait", [False, True])
def test_work_of_a_client_that_leaves_is_dropped(wait):
    """While it is scored, and while it waits for another one's scores."""
    with running(LIMITS) as (address, scorer, endpoint):
        scorer.gate.clear()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(ask, address) if wait else None
            if wait:
                assert scorer.started.acquire(timeout=SOON)
            client = socket.create_connection(address, timeout=SOON)
            client.sendall(b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
            client.sendall(f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
            until(lambda: endpoint._places.requests == 1 + wait)
            if not wait:
                assert scorer.started.acquire(timeout=SOON)
            client.close()
            until(lambda: endpoint._places.requests == wait)
            scorer.gate.set()
            assert first is None or first.result(SOON)[0] == 200
        assert (scorer.dropped, scorer.done) == ((0, 1) if wait else (1, 0))


def test_who_comes_when_all_places_are_taken_is_told_at_once():
    with running(LIMITS) as (address, scorer, _):
        scorer.gate.clear()
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(ask, address) for _ in range(8)]
            until(lambda: sum(answer.done() for answer in answers) == 4)
            busy = [answer.result() for answer in answers if answer.done()]
            scorer.gate.set()
            assert sorted(answer.result(SOON)[0] for answer in answers) == [200] * 4 + [503] * 4
    for status, content, headers in busy:
        assert status == 503
        assert headers["Retry-After"] == "1"
        assert (
            "expected at most 4 requests at once, large ones of together 16,000 bytes, got one more of"
            in content["message"]
        )


def test_no_more_predictions_at_once_than_the_limit_says():
    with running(Limits(predictions=2)) as (address, scorer, _):
        scorer.gate.clear()
        with ThreadPoolExecutor(5) as pool:
            answers = [pool.submit(ask, address) for _ in range(5)]
            assert scorer.started.acquire(timeout=SOON)
            assert scorer.started.acquire(timeout=SOON)
            assert not scorer.started.acquire(timeout=0.1)
            scorer.gate.set()
            assert [answer.result(SOON)[0] for answer in answers] == [200] * 5


def test_large_bodies_are_counted_and_do_not_keep_small_ones_out():
    places = Places(Limits(max_bytes=100, max_requests=10))
    leave = [places.take(100) for _ in range(4)]
    with pytest.raises(
        RequestError, match="10 requests at once, large ones of together 400 bytes, got one more of 41 bytes"
    ) as caught:
        places.take(41)
    assert caught.value.status == 503
    leave.pop()()
    leave += [places.take(size) for size in (60, 40, 40, 40)]
    with pytest.raises(RequestError, match="got one more of 41 bytes"):
        places.take(41)
    leave += [places.take(1) for _ in range(3)]
    with pytest.raises(RequestError, match="got one more of 0 bytes"):
        places.take(0)
    for one in leave:
        one()
    assert places.requests == places.held == 0
