"""An application behind a real HTTP server in this process, and how tests ask it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn

SOON = 5.0
JSON = {"Content-Type": "application/json"}


@contextmanager
def in_thread(app: Any) -> Iterator[tuple[str, int]]:
    """Serve an application; its host and port."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        try:
            until(lambda: server.started)
            yield bound.getsockname()
        finally:
            server.should_exit = True
            thread.join(SOON)


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.005)


def post(
    address: tuple[str, int], body: Any, headers: Mapping[str, str] = JSON, **given: Any
) -> tuple[int, dict[str, Any], Mapping[str, str]]:
    """Ask for scores; status, content and headers of the answer."""
    return _ask(address, "POST", "/invocations", body, headers, **given)


def get(address: tuple[str, int], path: str) -> tuple[int, Any, Mapping[str, str]]:
    return _ask(address, "GET", path)


def _ask(address: tuple[str, int], *request: Any, **given: Any) -> tuple[int, Any, Mapping[str, str]]:
    connection = http.client.HTTPConnection(*address, timeout=SOON)
    try:
        connection.request(*request, **given)
        response = connection.getresponse()
        text = response.read().decode()
        is_json = text.startswith("{")
        return response.status, json.loads(text) if is_json else text, response.headers
    finally:
        connection.close()
