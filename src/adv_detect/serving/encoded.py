"""Encoded pictures in a request: base64 to the input of the network, by the code that reads pictures everywhere."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adv_detect.pictures import PictureError, PictureInput
from adv_detect.serving.limits import RequestError


def decode_pictures(texts: Sequence[str], steps: PictureInput, *, first: int = 0) -> NDArray[np.float32]:
    """Decode pictures.

    Args:
        texts: Each an encoded picture (JPEG, PNG, ...) in base64, of any size.
        steps: From a picture to the input of the network.
        first: Number of the first text, for errors.

    Returns:
        Images ``(N, channels, H, W)``, float32, in the pixel range of the network.

    Raises:
        RequestError: A text is no base64, or holds no picture that can be used (status 400).
    """
    pixels = []
    for number, text in enumerate(texts, start=first):
        try:
            content = base64.b64decode(text, validate=True)
            pixels.append(steps.decode(content, max_pixels=Image.MAX_IMAGE_PIXELS)[0])
        except binascii.Error as exc:
            raise _refused(number, f"no base64 ({exc})") from exc
        except ValueError as exc:  # a picture that cannot be used; letters that are no ASCII
            came = str(exc) if isinstance(exc, PictureError) else "no base64 (letters beyond ASCII)"
            raise _refused(number, came) from exc
    images: NDArray[np.float32] = steps.batch(pixels).numpy()
    return images


def _refused(number: int, came: str) -> RequestError:
    return RequestError(
        400,
        f"inputs[{number}]: expected an encoded picture (JPEG, PNG, ...) in base64, got one that cannot be read: "
        f"{came}",
    )
