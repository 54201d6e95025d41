from __future__ import annotations

import json

import numpy as np
import pytest

from adv_detect.serving.decoding import decode_request
from adv_detect.serving.limits import RequestError

SHAPE = (2, 2, 3)
IMAGE = np.arange(12).reshape(SHAPE)


def decode(content, *, max_images=4):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return decode_request(body, image_shape=SHAPE, max_images=max_images)


def replaced(place, value):
    """Two images, with something else at a place."""
    images = np.stack([IMAGE, IMAGE]).tolist()
    parent = images
    for step in place[:-1]:
        parent = parent[step]
    parent[place[-1]] = value
    return {"inputs": images}


@pytest.mark.parametrize("key", ["inputs", "instances"])
def test_images_come_out_as_they_were_sent(key):
    sent = np.random.default_rng(0).random((3, *SHAPE), dtype=np.float32)
    images, rate = decode({key: sent.tolist()})
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, sent)
    assert rate == {}


@pytest.mark.parametrize(
    ("params", "rate"),
    [(None, {}), ({}, {}), ({"fpr": None}, {}), ({"fpr": 0.01}, {"fpr": 0.01}), ({"fpr": 1}, {"fpr": 1.0})],
)
def test_the_rate(params, rate):
    assert decode({"inputs": [IMAGE.tolist()], "params": params})[1] == rate


@pytest.mark.parametrize(
    ("place", "came"),
    [
        ((0,), r"\(2, 3, 2, 3\); send channels first"),
        ((0, 0, 1), r"a list of 4 at inputs\[0\]\[0\]\[1\], where a list of 3 belongs"),
        ((1, 1), r"a list of 3 at inputs\[1\]\[1\], where a list of 2 belongs"),
    ],
)
def test_a_wrong_length_is_told_with_its_place(place, came):
    images = np.stack([IMAGE, IMAGE]).tolist()
    part = images
    for step in place:
        part = part[step]
    part.append(part[0])
    with pytest.raises(RequestError, match=rf"expected images of shape \(N, 2, 2, 3\), got {came}"):
        decode({"inputs": images})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected valid JSON of the form .*, got an empty body"),
        (b'{"inputs": [', "got expecting value at character 12"),
        (b"\xff\xfe\xfa{", "expected JSON in UTF-8, got bytes that are none at byte"),
        (b'{"inputs": ' + b"9" * 10_000 + b"}", "got numbers too long or lists too deep"),
        ([], "expected an object of the form .*, got a list"),
        ("images", "got a string"),
        (None, "got null"),
        ({}, "expected the key 'inputs' .*, got no key"),
        ({"pixels": 1}, "expected the key 'inputs' .*, got 'pixels'"),
        ({"x" * 999: 1}, f"got '{'x' * 40}...'$"),
        ({"inputs": [IMAGE.tolist()], "parms": {"fpr": 0.01}}, "at most 'params' beside it.*, got 'inputs', 'parms'"),
        ({"inputs": [IMAGE.tolist()], "instances": [IMAGE.tolist()]}, "got 'inputs', 'instances'"),
        ({"inputs": {"images": []}}, "inputs: expected a list of images, got an object"),
        ({"instances": "images"}, "instances: expected a list of images, got a string"),
        ({"inputs": []}, "inputs: expected at least one image, got an empty list"),
        ({"inputs": ["a", "b"]}, r"expected images of shape \(N, 2, 2, 3\), got a list whose first entry is a string"),
        ({"inputs": [[]]}, r"expected images of shape \(N, 2, 2, 3\), got \(1, 0\); send channels first"),
        ({"inputs": IMAGE.tolist()}, r"got \(2, 2, 3\); send channels first, all at this size"),
        ({"inputs": [IMAGE.transpose(1, 2, 0).tolist()]}, r"got \(1, 2, 3, 2\)"),
        ({"inputs": [[IMAGE.tolist()]]}, r"got \(1, 1, 2, 2, 3\)"),
        (replaced((1,), 5), r"expected images .*, got a number at inputs\[1\], where a list of 2 belongs"),
        (replaced((1, 0), []), r"got a list of 0 at inputs\[1\]\[0\], where a list of 2 belongs"),
        (replaced((1, 1, 0), [1, 2]), r"got a list of 2 at inputs\[1\]\[1\]\[0\], where a list of 3 belongs"),
        (replaced((0, 1, 1, 2), "0.5"), r"expected numbers as pixels, got a string at inputs\[0\]\[1\]\[1\]\[2\]"),
        (replaced((0, 0, 1, 0), None), r"got null at inputs\[0\]\[0\]\[1\]\[0\]"),
        (replaced((0, 0, 1, 0), True), r"got a truth value at inputs\[0\]\[0\]\[1\]\[0\]"),
        (replaced((0, 0, 1, 1), [0.5]), r"got a list at inputs\[0\]\[0\]\[1\]\[1\]"),
        (replaced((0, 0, 1, 1), 10**400), "expected finite pixels, got a whole number beyond all size"),
        ({"inputs": [IMAGE.tolist()], "params": [0.01]}, 'params: expected {"fpr": rate}, got a list'),
        ({"inputs": [IMAGE.tolist()], "params": {"fprs": 0.01}}, "params: .*, got 'fprs'"),
        ({"inputs": [IMAGE.tolist()], "params": {"fpr": "low"}}, "fpr: expected a rate such as 0.05, got a string"),
        ({"inputs": [IMAGE.tolist()], "params": {"fpr": True}}, "got a truth value"),
        (
            {"inputs": [IMAGE.tolist()], "params": {"fpr": 10**400}},
            "fpr: expected a rate such as 0.05, got one above 1",
        ),
    ],
)
def test_a_body_of_another_form(content, message):
    with pytest.raises(RequestError, match=message) as caught:
        decode(content)
    assert caught.value.status == 400
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_too_many_images_are_refused():
    assert len(decode({"inputs": [IMAGE.tolist()] * 4})[0]) == 4
    with pytest.raises(
        RequestError, match=r"expected at most 4 images a request, got 5; .*ADV_DETECT_MAX_IMAGES"
    ) as caught:
        decode({"inputs": ["no image"] * 5})
    assert caught.value.status == 413
    with pytest.raises(RequestError, match="expected at most 1,500 images a request, got 1,501"):
        decode({"inputs": [IMAGE.tolist()] * 1501}, max_images=1500)


@pytest.mark.parametrize(
    ("body", "came"),
    [
        (json.dumps({"inputs": [IMAGE.tolist()] * 7}).encode(), "numbers enough for 7"),
        (b"[" * 53, "53 lists"),
        (b'{"":' * 53, "53 lists"),
        (b"0," * 600 + b"0", "numbers enough for 51"),
    ],
)
def test_what_would_take_much_memory_is_refused_before_it_is_decoded(body, came, monkeypatch):
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(RequestError, match=f"expected at most 4 images a request, got {came}; send them") as caught:
        decode(body)
    assert caught.value.status == 413


def test_lists_too_deep():
    with pytest.raises(RequestError, match="got numbers too long or lists too deep"):
        decode(b"[" * 60_000, max_images=10_000)


def test_the_largest_request_is_not_refused():
    images = [IMAGE.tolist()] * 4
    assert decode({"inputs": images, "params": {"fpr": 0.01}})[0].shape == (4, *SHAPE)


def test_pixels_that_are_not_finite_come_through_to_the_check_of_the_range():
    images, _ = decode(b'{"inputs": [[[[NaN, 1e999, -Infinity], [0, 1, 1e300]], [[0, 0, 0], [0, 0, 0]]]]}')
    np.testing.assert_array_equal(images[0, 0], [[np.nan, np.inf, -np.inf], [0, 1, np.inf]])
