"""Pictures as they are seen: upright, eight bits a channel, without transparency."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from adv_detect.pictures.opening import PictureError

Colour = Literal["rgb", "grayscale"]

PIXELS = 2  # raised whenever the same file is decoded to other pixels than before
WIDE = ("I;16", "I;16L", "I;16B", "I;16N")  # 16-bit grey
PLAIN = ("1", "L", "P", "RGB", "RGBA", "RGBX", "RGBa", "LA", "PA", "CMYK", "YCbCr", "HSV")
INTEGERS_OF_16_BITS = ("PPM", "PNG")  # formats that Pillow opens as mode I for 0 to 65535
EIGHT_BITS = 255
GREY_MODES = ("1", "L", "LA")
BITS_TAG, PHOTOMETRIC_TAG = 258, 262  # of TIFF
EXIF_MARKERS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # where a PNG may hold an orientation
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)


def upright_size(image: Image.Image, content: bytes) -> tuple[int, int]:
    """Return height and width after the EXIF orientation, without decoding pixels where that can be avoided.

    Args:
        image: An opened file.
        content: Its bytes; Pillow decodes a whole PNG to look for EXIF, so it is asked only where some may be.

    Returns:
        Height and width in pixels.
    """
    if image.format == "TIFF" or (image.format == "PNG" and not any(marker in content for marker in EXIF_MARKERS)):
        return image.height, image.width  # the size of an opened TIFF is upright already
    turned = _orientation(image) in SIDEWAYS
    return (image.width, image.height) if turned else (image.height, image.width)


def check_mode(image: Image.Image) -> None:
    """Refuse a picture whose range of values is unclear.

    Args:
        image: An opened file; its pixels are decoded only where they decide.

    Raises:
        PictureError: The mode is unknown, or holds integers of 32 bits, or numbers outside [0, 1].
    """
    if image.mode == "F":
        _unit_values(image)
    elif image.mode not in PLAIN + WIDE and not (image.mode == "I" and image.format in INTEGERS_OF_16_BITS):
        raise PictureError(
            f"mode {image.mode} of a {image.format or 'picture'} file has no defined range; save it with 8 or 16 "
            "bits a channel"
        )


def plain_picture(image: Image.Image, colour: Colour | None) -> Image.Image:
    """Turn a picture into eight bits a channel, upright, transparency laid over white.

    16-bit grey is scaled to its whole range, numbers from [0, 1].

    Args:
        image: Any picture.
        colour: ``rgb`` or ``grayscale``; None for grey where the picture is grey.

    Returns:
        A picture of mode ``RGB`` or ``L``.

    Raises:
        PictureError: Its range of values is unclear.
    """
    check_mode(image)
    image.load()  # Pillow turns a TIFF upright here, so its orientation is asked for afterwards
    orientation = _orientation(image)
    eight = _eight_bits(image)
    wanted = {"rgb": "RGB", "grayscale": "L", None: "L" if eight.mode in GREY_MODES else "RGB"}[colour]
    if eight.has_transparency_data:
        eight = Image.alpha_composite(Image.new("RGBA", eight.size, "white"), eight.convert("RGBA"))
    if eight.mode not in ("1", "L", "RGB"):
        eight = eight.convert("RGB")
    turn = TURNS.get(orientation)
    return (eight if turn is None else eight.transpose(turn)).convert(wanted)


def _orientation(image: Image.Image) -> int:
    try:
        found: Any = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever is wrong with the metadata, the pixels may be sound
        return 1
    return found if found in TURNS else 1


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        return _grey(_unit_values(image) * EIGHT_BITS, image)
    if image.mode in WIDE or image.mode == "I":
        values = np.asarray(image).astype(np.float64)
        highest = 2 ** _tag(image, BITS_TAG, 16) - 1
        values = highest - values if _tag(image, PHOTOMETRIC_TAG, 1) == 0 else values
        return _grey(values / highest * EIGHT_BITS, image)
    return image


def _grey(values: NDArray[np.float64], image: Image.Image) -> Image.Image:
    """Round to a grey picture; the one value that is declared transparent becomes white."""
    transparent = image.info.get("transparency")
    if transparent is not None:
        values = np.where(np.asarray(image) == transparent, EIGHT_BITS, values)
    return Image.fromarray(np.rint(values).astype(np.uint8))


def _unit_values(image: Image.Image) -> NDArray[np.float64]:
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also where one is not a number
        raise PictureError(
            f"mode F (numbers) needs values from 0 to 1, got {low:g} to {high:g}; scale them, or save 8 or 16 bits"
        )
    return 1 - values if _tag(image, PHOTOMETRIC_TAG, 1) == 0 else values


def _tag(image: Image.Image, number: int, default: int) -> int:
    """Return a number of a TIFF's header."""
    value: Any = getattr(image, "tag_v2", {}).get(number, default)
    return int(value[0] if isinstance(value, tuple) else value)
