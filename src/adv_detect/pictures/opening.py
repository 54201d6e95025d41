"""Encoded pictures, opened with one sentence for each that cannot be used."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from adv_detect.errors import DataError

DECODE_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    KeyError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    RuntimeError,  # an unsupported compression
    Image.DecompressionBombError,
)
"""Errors of Pillow and zipfile on damaged files."""


class PictureError(DataError):
    """A picture cannot be used; the message is the reason alone, such as ``not an image file``."""


@contextmanager
def opened_picture(content: bytes, *, max_pixels: int | None = None) -> Iterator[Image.Image]:
    """Open an encoded picture; what fails inside the block, such as decoding, is named as well.

    Args:
        content: A whole file.
        max_pixels: Pixels that are taken at most; None means Pillow's own limit for decompression bombs.

    Yields:
        The picture, its pixels not decoded yet.

    Raises:
        PictureError: It is empty, no picture, too large or damaged, or its mode is unclear.
    """
    if not content:
        raise PictureError("empty file")
    try:
        with Image.open(io.BytesIO(content)) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise PictureError(
                    f"too large to be decoded ({image.width:,} x {image.height:,} pixels, expected at most "
                    f"{max_pixels:,} in all)"
                )
            yield image
    except PictureError:
        raise
    except UnidentifiedImageError as exc:
        raise PictureError("not an image file") from exc
    except Image.DecompressionBombError as exc:
        raise PictureError(f"too large to be decoded ({exc})") from exc
    except DECODE_ERRORS as exc:
        raise PictureError(f"damaged ({exc})") from exc
