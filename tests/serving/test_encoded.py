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


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ("no base64!", r"inputs\[1\]: expected an encoded picture .* in base64, got one: no base64"),
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
