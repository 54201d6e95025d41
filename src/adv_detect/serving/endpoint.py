"""The endpoint for scores: takes in a bounded number of bounded bodies, scores them, answers in one sentence if not."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from adv_detect.errors import AdvDetectError
from adv_detect.pictures import PictureInput
from adv_detect.serving.decoding import RATE, decode_request
from adv_detect.serving.limits import VARIABLES, Limits, RequestError

JSON_TYPE = "application/json"
CODES = {
    400: "INVALID_PARAMETER_VALUE", 408: "REQUEST_TIMEOUT", 413: "REQUEST_TOO_LARGE", 415: "UNSUPPORTED_MEDIA_TYPE",
    500: "INTERNAL_ERROR", 503: "TEMPORARILY_UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
"""``error_code`` of an answer by status; the words are MLflow's."""
LINGER_SECONDS = 30.0
"""How long the rest of a refused body is thrown away: a client that is still sending would find the connection reset
and never see the answer."""
LOGGER = logging.getLogger(__name__)


class Scorer(Protocol):
    """Scores images, and asks between chunks whether anyone still waits for the scores."""

    def __call__(
        self, images: NDArray[np.float32], rates: Mapping[str, float], unwanted: Callable[[], bool]
    ) -> pd.DataFrame:
        """Give a row per image, or pair of images."""


class ScoringEndpoint:
    """Answers requests for scores, a bounded number at once."""

    def __init__(
        self,
        score: Scorer,
        image_shape: tuple[int, ...],
        limits: Limits,
        *,
        rates: tuple[str, ...] = (RATE,),
        switches: tuple[str, ...] = (),
        pictures: PictureInput | None = None,
    ) -> None:
        """Start no work yet.

        Args:
            score: Scores images; called from several threads.
            image_shape: ``(channels, H, W)``, or of pairs ``(2, channels, H, W)``.
            limits: What is taken on.
            rates: Names of the rates that a request may give.
            switches: Names of the truth values that it may give.
            pictures: Steps from an encoded picture to an image; None refuses pictures.
        """
        self.rates, self.switches, self.pictures = rates, switches, pictures
        self.score = score
        self.image_shape = image_shape
        self.limits = limits
        self._places = Places(limits)
        self._decoding = threading.Lock()  # decoding in more threads is no faster, and takes the memory several times
        self._pool = ThreadPoolExecutor(limits.predictions, thread_name_prefix="score")

    async def tell_limits(self, _request: Request) -> Response:
        """Answer with the limits that are in force."""
        return JSONResponse(asdict(self.limits))

    async def answer(self, request: Request) -> Response:
        """Answer a request for scores.

        Args:
            request: Its body as :func:`adv_detect.serving.decoding.decode_request` takes it.

        Returns:
            MLflow's form: ``predictions``, a row per image; or ``error_code`` and ``message``, one sentence.
        """
        end = asyncio.get_running_loop().time() + self.limits.timeout
        try:
            leave = self._places.take(self._size(request))
            try:
                body = await self._body(request, end)
            except BaseException:
                leave()
                raise
        except RequestError as exc:
            return Refusal(exc, linger=True)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        return await self._scored(request, body, end, leave)

    def _size(self, request: Request) -> int:
        """Check the headers; give the size of the body, the largest one where it is not stated."""
        kind, _, charset = request.headers.get("content-type", "none").lower().partition(";")
        charset = charset.strip().replace('"', "")
        coding = request.headers.get("content-encoding", "")
        if kind.strip() != JSON_TYPE or charset not in {"", "charset=utf-8"} or coding not in {"", "identity"}:
            came = ", ".join(filter(None, (kind.strip(), charset, coding)))[:100]
            raise RequestError(415, f"expected a body of content type {JSON_TYPE}, in UTF-8, not packed, got {came}")
        length = request.headers.get("content-length")
        size = self.limits.max_bytes if length is None else int(length)
        if size > self.limits.max_bytes:
            raise self._too_large(f"{size:,}")
        return size

    def _too_large(self, came: str) -> RequestError:
        return RequestError(
            413,
            f"expected a body of at most {self.limits.max_bytes:,} bytes, got {came}; send fewer images a request, or "
            f"raise {VARIABLES['max_bytes']} of the server",
        )

    async def _body(self, request: Request, end: float) -> bytearray:
        body = bytearray()
        try:
            async with asyncio.timeout_at(end):
                async for part in request.stream():
                    if len(body) + len(part) > self.limits.max_bytes:
                        raise self._too_large("more")
                    body += part
        except TimeoutError as exc:
            within = f"the whole body within {self.limits.timeout:g} s"
            raise RequestError(408, f"expected {within}, got {len(body):,} bytes so far; send fewer images") from exc
        return body

    async def _scored(self, request: Request, body: bytearray, end: float, leave: Callable[[], None]) -> Response:
        """Score in the pool; the place of a request is free when the pool is done with it, wanted or not."""
        dropped = threading.Event()
        work = self._pool.submit(self._work, body, dropped.is_set)
        work.add_done_callback(lambda _: leave())
        result = asyncio.wrap_future(work)
        gone = asyncio.ensure_future(_until_gone(request.receive))
        either: set[asyncio.Future[Any]] = {result, gone}
        try:
            left = end - asyncio.get_running_loop().time()
            await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            return result.result() if result.done() else Refusal(self._too_late())
        finally:
            dropped.set()
            result.cancel()
            gone.cancel()

    def _too_late(self) -> RequestError:
        within = f"scores within {self.limits.timeout:g} s"
        return RequestError(
            504,
            f"expected {within}, and they were not done; send fewer images a request, or start the server with a "
            f"larger {VARIABLES['timeout']}",
        )

    def _work(self, body: bytearray, unwanted: Callable[[], bool]) -> Response:
        """Decode, score and encode; an error ends here, since its frames would keep what was decoded alive."""
        try:
            with self._decoding:
                images, rates = decode_request(
                    body,
                    image_shape=self.image_shape,
                    max_images=self.limits.max_images,
                    rates=self.rates,
                    switches=self.switches,
                    pictures=self.pictures,
                )
            body.clear()
            table = self.score(images, rates, unwanted)
            content = json.dumps({"predictions": _records(table)}, allow_nan=False)
            return Response(content, media_type=JSON_TYPE)
        except AdvDetectError as exc:
            return Refusal(exc)
        except CancelledError:
            return Response(status_code=504)  # nobody reads it
        except Exception as exc:
            LOGGER.exception("a request was not scored")
            return Refusal(RequestError(500, f"the server failed ({type(exc).__name__}); its log says where"))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table; what is missing in an explanation becomes null."""
    whole = table if not table.isna().any(axis=None) else table.astype(object).where(table.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in whole.to_dict("records")]


class Places:
    """Counts requests under way and the bytes of their bodies, as far as these are large."""

    def __init__(self, limits: Limits) -> None:
        """Begin with none.

        Args:
            limits: ``max_requests`` and ``max_held``.
        """
        self.limits = limits
        self.requests = self.held = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> Callable[[], None]:
        """Take a place for a request.

        Args:
            size: Bytes of its body.

        Returns:
            Gives the place back; to be called once, from any thread.

        Raises:
            RequestError: No place is left.
        """
        large = size if size > self.limits.small else 0
        with self._lock:
            if self.requests >= self.limits.max_requests or self.held + large > self.limits.max_held:
                raise RequestError(
                    503,
                    f"expected at most {self.limits.max_requests:,} requests at once, large ones of together "
                    f"{self.limits.max_held:,} bytes, got one more of {size:,} bytes; send it again in a second",
                )
            self.requests += 1
            self.held += large
        return partial(self._leave, large)

    def _leave(self, large: int) -> None:
        with self._lock:
            self.requests -= 1
            self.held -= large


class Refusal(JSONResponse):
    """An answer of one sentence, in MLflow's form."""

    def __init__(self, error: AdvDetectError, *, linger: bool = False) -> None:
        """Write the answer.

        Args:
            error: Its message is the sentence; status 400 where it has none.
            linger: Whether the body may still be on its way.
        """
        status = error.status if isinstance(error, RequestError) else 400
        headers = {"Connection": "close"} if linger else {}
        if status == 503:
            headers["Retry-After"] = "1"
        super().__init__({"error_code": CODES[status], "message": str(error)}, status, headers)
        self.linger = linger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole answer at once; then throw away what still comes, for a while."""
        if not self.linger:
            return await super().__call__(scope, receive, send)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while (await receive()).get("more_body", False):
                    pass
        except TimeoutError:
            LOGGER.debug("a refused body did not end within %g s", LINGER_SECONDS)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return None


async def _until_gone(receive: Receive) -> None:
    """Wait until the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
