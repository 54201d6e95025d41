"""Encoded pictures in a request."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from adv_detect.pictures import PictureInput
from adv_detect.serving.decoding import decode_request
from adv_detect.serving.limits import RequestError

SHAPE, BOUNDS = (3, 112, 96), (-1.0, 1.0)
STEPS = PictureInput.of(None, SHAPE, BOUNDS)


def jpeg(height: int = 112, width: int = 96, seed: int = 0) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def decode(*pictures: str, steps: PictureInput | None = STEPS):
    body = json.dumps({"inputs": list(pictures), "params": {"fpr": 0.1}}).encode()
    return decode_request(body, image_shape=SHAPE, max_images=3, pictures=steps), len(body)


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_pictures_of_any_size_become_the_tensor_of_training_and_scoring():
    contents = [jpeg(), jpeg(60, 80, seed=1)]
    (images, rate), _ = decode(*map(text, contents))
    expected = STEPS.batch([STEPS.decode(one)[0] for one in contents])
    assert torch.equal(torch.from_numpy(images), expected)
    assert images.dtype == np.float32
    assert rate == {"fpr": 0.1}


def test_a_face_takes_a_few_kilobytes():
    _, size = decode(text(jpeg()))
    assert size <= 12_000
    assert len(json.dumps({"inputs": [STEPS.decode(jpeg())[0].tolist()]})) > 100_000


def test_a_face_of_112_x_112_takes_at_most_12_kilobytes_as_jpeg_of_quality_90():
    """With the grain of a camera on it; as a PNG it takes several times that, as numbers more than 300 KB."""
    generator = np.random.default_rng(3)
    coarse = Image.fromarray(generator.integers(40, 216, (9, 9, 3), dtype=np.uint8)).resize((112, 112), Image.BICUBIC)
    grain = generator.normal(0, 3, (112, 112, 3))
    face = Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    face.save(buffer, "JPEG", quality=90)
    steps = PictureInput.of(None, (3, 112, 112), BOUNDS)
    body = json.dumps({"inputs": [text(buffer.getvalue())]}).encode()
    assert len(body) <= 12_000
    images, _ = decode_request(body, image_shape=(3, 112, 112), max_images=1, pictures=steps)
    assert len(json.dumps({"inputs": images.round(4).tolist()})) > 300_000


def split(*pictures, **changes):
    frame = {"columns": ["face"], "index": list(range(len(pictures))), "data": [[one] for one in pictures]} | changes
    body = json.dumps({"dataframe_split": frame, "params": {"explain": True}}).encode()
    return decode_request(body, image_shape=SHAPE, max_images=3, pictures=STEPS, switches=("explain",))


def test_a_column_of_a_frame_is_the_same_list():
    images, given = split(text(jpeg()), text(jpeg(seed=1)))
    assert np.array_equal(images, decode(text(jpeg()), text(jpeg(seed=1)))[0][0])
    assert given == {"explain": True}


@pytest.mark.parametrize(
    ("pictures", "changes", "message"),
    [
        ((), {}, "dataframe_split: expected at least one picture, got no row"),
        (("a",), {"columns": ["a", "b"]}, "expected one column of encoded pictures, .* got 2 columns"),
        (("a",), {"rows": 1}, "got another form"),
        ((1,), {}, "expected an encoded picture in base64 in row 0, got a number"),
        (("a",) * 4, {}, "at most 3 images"),
        (("a",), {}, r"inputs\[0\]: expected an encoded picture"),
    ],
)
def test_a_frame_of_another_form_is_refused(pictures, changes, message):
    with pytest.raises(RequestError, match=message):
        split(*pictures, **changes)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"explain": 1}, "explain: expected true or false, got a number"),
        ({"explian": True}, '"fpr": rate, "explain": true'),
    ],
)
def test_a_switch_is_a_truth_value(params, message):
    body = json.dumps({"inputs": [text(jpeg())], "params": params}).encode()
    with pytest.raises(RequestError, match=message):
        decode_request(body, image_shape=SHAPE, max_images=3, pictures=STEPS, switches=("explain",))


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (
            "no base64!",
            r"inputs\[1\]: expected an encoded picture .* in base64, got one that cannot be read: no base64",
        ),
        ("ü", "no base64 .letters beyond ASCII"),
        ("", "empty file"),
        (text(b"some bytes"), "not an image file"),
        (text(jpeg()[:200]), "damaged"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_place(sent, message):
    with pytest.raises(RequestError, match=message) as found:
        decode(text(jpeg()), sent)
    assert found.value.status == 400


def test_their_number_is_limited_and_networks_of_other_channels_take_none():
    with pytest.raises(RequestError, match="at most 3 images"):
        decode(*[text(jpeg())] * 4)
    with pytest.raises(RequestError, match="a list whose first entry is a string"):
        decode(text(jpeg()), steps=None)
