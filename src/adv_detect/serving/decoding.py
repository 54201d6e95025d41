"""Decodes the JSON body of a request into images, and refuses what is none."""

from __future__ import annotations

import itertools
import json
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adv_detect.pictures import PictureInput
from adv_detect.serving.encoded import decode_pictures
from adv_detect.serving.limits import VARIABLES, RequestError

FORM = '{"inputs": [image, ...], "params": {"fpr": rate}}'
IMAGES = ("inputs", "instances")
SPLIT = "dataframe_split"
SPLIT_FORM = '{"columns": ["picture"], "data": [[text], ...]}'
SPLIT_KEYS = {"columns", "data", "index"}
PARAMS = "params"
RATE = "fpr"
EXPLAIN = "explain"
KINDS = {str: "a string", bool: "a truth value", type(None): "null", dict: "an object", list: "a list"}
SPARE = 16
"""Commas and brackets that a request has beside those of its images."""
SHOWN = 40
"""Characters of a foreign name that an answer repeats."""


def decode_request(
    body: bytes | bytearray,
    *,
    image_shape: Sequence[int],
    max_images: int,
    rates: Sequence[str] = (RATE,),
    switches: Sequence[str] = (),
    pictures: PictureInput | None = None,
) -> tuple[NDArray[np.float32], dict[str, float]]:
    """Read images, the rates of the verdict, and what is switched on.

    Args:
        body: UTF-8 JSON: ``inputs`` (or ``instances``), nested lists of shape ``(N, channels, H, W)``, or a list of
            encoded pictures (JPEG, PNG, ...) in base64, of any size; or in their place ``dataframe_split`` with one
            column of such pictures; and optionally ``params`` with rates and switches.
        image_shape: Shape of one input: ``(channels, H, W)`` of the network, or of pairs ``(2, channels, H, W)``.
        max_images: Inputs that are taken at most.
        rates: Names of the rates that ``params`` may hold.
        switches: Names of the truth values that it may hold.
        pictures: Steps from an encoded picture to the input of the network; None refuses pictures.

    Returns:
        Images ``(N, *image_shape)``, float32, at least one, and the rates asked for, by name. Range and finiteness of
        the pixels are not checked here.

    Raises:
        RequestError: The body has another form (status 400) or too many images (413).
    """
    _check_size(body, image_shape, max_images)
    content = _parse(body)
    images = _images_of(content)
    if len(images) > max_images:
        raise _too_many(max_images, f"{len(images):,}")
    given = _params_of(content.get(PARAMS), rates, switches)
    if pictures is not None and all(isinstance(one, str) for one in images):
        return decode_pictures(images, pictures), given
    _check_shape(images, tuple(image_shape))
    return _as_array(images), given


def _check_size(body: bytes | bytearray, image_shape: Sequence[int], max_images: int) -> None:
    """Count commas and brackets before decoding: as Python lists, a body takes up to twenty times its bytes."""
    numbers, lists = body.count(b",") + 1, body.count(b"[") + body.count(b"{")
    pixels = math.prod(image_shape)
    if numbers > max_images * pixels + SPARE:
        raise _too_many(max_images, f"numbers enough for {math.ceil(numbers / pixels):,}")
    if lists > max_images * sum(itertools.accumulate(image_shape[:-1], operator.mul, initial=1)) + SPARE:
        raise _too_many(max_images, f"{lists:,} lists")


def _too_many(max_images: int, came: str) -> RequestError:
    return RequestError(
        413,
        f"expected at most {max_images:,} images a request, got {came}; send them in several requests, or raise "
        f"{VARIABLES['max_images']} of the server",
    )


def _parse(body: bytes | bytearray) -> dict[str, Any]:
    try:
        content = json.loads(body.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise RequestError(400, f"expected JSON in UTF-8, got bytes that are none at byte {exc.start}") from exc
    except json.JSONDecodeError as exc:
        came = f"{exc.msg.lower()} at character {exc.pos:,}" if body else "an empty body"
        raise RequestError(400, f"expected valid JSON of the form {FORM}, got {came}") from exc
    except (ValueError, RecursionError) as exc:  # a number of thousands of digits; thousands of nested lists
        came = "numbers too long or lists too deep"
        raise RequestError(400, f"expected valid JSON of the form {FORM}, got {came}") from exc
    if not isinstance(content, dict):
        raise RequestError(400, f"expected an object of the form {FORM}, got {_kind(content)}")
    return content


def _images_of(content: Mapping[str, Any]) -> list[Any]:
    """Take the images of a request; a foreign key is refused, since it may be a misspelt one."""
    named = [name for name in IMAGES if name in content]
    foreign = [name for name in content if name not in (*IMAGES, SPLIT, PARAMS)]
    if SPLIT in content and not named and not foreign:
        return _column_of(content[SPLIT])
    if len(named) != 1 or foreign or SPLIT in content:
        came = ", ".join(repr(_shortened(name)) for name in list(content)[:4]) or "no key"
        raise RequestError(400, f"expected the key 'inputs' and at most 'params' beside it, as in {FORM}, got {came}")
    images = content[named[0]]
    if not isinstance(images, list):
        raise RequestError(400, f"{named[0]}: expected a list of images, got {_kind(images)}")
    if not images:
        raise RequestError(400, f"{named[0]}: expected at least one image, got an empty list")
    return images


def _column_of(split: Any) -> list[Any]:
    """Take the pictures of a frame with one column, of whatever name."""
    columns, rows = (split.get(name) for name in ("columns", "data")) if isinstance(split, dict) else (None, None)
    if not isinstance(columns, list) or len(columns) != 1 or not isinstance(rows, list) or set(split) - SPLIT_KEYS:
        came = f"{len(columns)} columns" if isinstance(columns, list) and len(columns) != 1 else "another form"
        raise RequestError(400, f"{SPLIT}: expected one column of encoded pictures, {SPLIT_FORM}, got {came}")
    if not rows:
        raise RequestError(400, f"{SPLIT}: expected at least one picture, got no row")
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 1 or not isinstance(row[0], str):
            came = _kind(row[0]) if isinstance(row, list) and len(row) == 1 else "a row of another form"
            raise RequestError(400, f"{SPLIT}: expected an encoded picture in base64 in row {number}, got {came}")
    return [row[0] for row in rows]


def _check_shape(images: list[Any], image_shape: tuple[int, ...]) -> None:
    came = _leading_shape(images)
    wanted = f"images of shape (N, {', '.join(map(str, image_shape))})"
    if came[1:] != image_shape:
        got = f"({', '.join(map(str, came))})" if len(came) > 1 else f"a list whose first entry is {_kind(images[0])}"
        raise RequestError(400, f"inputs: expected {wanted}, got {got}; send channels first, all at this size")
    for number, image in enumerate(images):
        _check_nested(image, image_shape, (number,), wanted)


def _leading_shape(value: Any) -> tuple[int, ...]:
    """Lengths of the lists that come first."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _check_nested(value: Any, shape: tuple[int, ...], place: tuple[int, ...], wanted: str) -> None:
    if not isinstance(value, list) or len(value) != shape[0]:
        came = f"a list of {len(value)}" if isinstance(value, list) else _kind(value)
        raise RequestError(
            400, f"inputs: expected {wanted}, got {came} at {_path(place)}, where a list of {shape[0]} belongs"
        )
    if len(shape) > 1:
        for number, part in enumerate(value):
            _check_nested(part, shape[1:], (*place, number), wanted)
    elif not {int, float}.issuperset(map(type, value)):
        column = next(number for number, one in enumerate(value) if type(one) not in (int, float))
        raise RequestError(
            400, f"inputs: expected numbers as pixels, got {_kind(value[column])} at {_path((*place, column))}"
        )


def _as_array(images: list[Any]) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # becomes infinity, which is refused with the range of the pixels
            return np.array(images, dtype=np.float32)
    except OverflowError as exc:
        raise RequestError(400, "inputs: expected finite pixels, got a whole number beyond all size") from exc


def _params_of(params: Any, rates: Sequence[str], switches: Sequence[str]) -> dict[str, float]:
    names = (*rates, *switches)
    if params is None:
        return {}
    if not isinstance(params, dict) or set(params) - set(names):
        foreign = [one for one in params if one not in names] if isinstance(params, dict) else []
        came = repr(_shortened(foreign[0])) if foreign else _kind(params)
        form = ", ".join([*(f'"{name}": rate' for name in rates), *(f'"{name}": true' for name in switches)])
        raise RequestError(400, f"params: expected {{{form}}}, got {came}")
    given = {name: value for name, value in params.items() if value is not None}
    return {name: (_switch if name in switches else _rate)(name, value) for name, value in given.items()}


def _switch(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise RequestError(400, f"{name}: expected true or false, got {_kind(value)}")
    return value


def _rate(name: str, value: Any) -> float:
    if type(value) not in (int, float) or abs(value) > 1:
        came = _kind(value) if type(value) not in (int, float) else "one above 1"
        raise RequestError(400, f"{name}: expected a rate such as 0.05, got {came}")
    return float(value)


def _path(place: Sequence[int]) -> str:
    return "inputs" + "".join(f"[{number}]" for number in place)


def _kind(value: Any) -> str:
    return KINDS.get(type(value), "a number")


def _shortened(name: str) -> str:
    return name if len(name) <= SHOWN else f"{name[:SHOWN]}..."
